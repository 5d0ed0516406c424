# Every option of the build, with its default; nothing else in the project declares one.
include(CMakeDependentOption)

option(LORAPP_BUILD_TESTS "Build the tests" ${PROJECT_IS_TOP_LEVEL})
option(LORAPP_BUILD_EXAMPLES "Build the example programs, the lorapp program among them" ${PROJECT_IS_TOP_LEVEL})
option(LORAPP_BUILD_BENCH "Build the benchmarks (Google Benchmark)" ${PROJECT_IS_TOP_LEVEL})
option(LORAPP_INSTALL "Generate the install rules and the CMake package" ${PROJECT_IS_TOP_LEVEL})
option(LORAPP_WERROR "Treat warnings as errors" OFF)
option(BUILD_SHARED_LIBS "Build lorapp as a shared library" OFF)

set(LORAPP_CUDA AUTO CACHE STRING "CUDA kernels: AUTO (where a toolkit and a CUDA LibTorch are found), ON or OFF")
set_property(CACHE LORAPP_CUDA PROPERTY STRINGS AUTO ON OFF)
set(LORAPP_CUDA_ARCHS "80;90" CACHE STRING "CUDA architectures to compile for")
set(LORAPP_HUB AUTO CACHE STRING "Downloads from the Hugging Face hub: AUTO (where libcurl is found), ON or OFF")
set_property(CACHE LORAPP_HUB PROPERTY STRINGS AUTO ON OFF)
set(LORAPP_ISAS AUTO CACHE STRING
  "CPU instruction sets to compile kernels for: AUTO (all that the compiler has) or a list of scalar;avx2;avx512;avx512vnni;avx512bf16;amx")
set(LORAPP_SANITIZE "" CACHE STRING "Sanitizers to build with, e.g. address,undefined")
set(LORAPP_CMAKE_DIR "lib/cmake/lorapp" CACHE STRING "Where the CMake package is installed, below the prefix")

if(PROJECT_IS_TOP_LEVEL AND NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
