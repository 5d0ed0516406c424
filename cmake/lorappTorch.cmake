# Finds LibTorch without the side effects of find_package(Torch), and defines the target lorapp::torch.
#
# A CPU build links libtorch_cpu and libc10 only, so that it needs no CUDA toolkit even where LibTorch is the CUDA wheel.
# Searched in order: Torch_DIR, CMAKE_PREFIX_PATH, TORCH_ROOT, the torch package of the python3 on PATH.
# The same file is installed with the package, so that a consumer's build finds its own LibTorch the same way.
if(TARGET lorapp::torch)
  return()
endif()

set(_lorapp_torch_hints ${TORCH_ROOT} $ENV{TORCH_ROOT})
if(Torch_DIR)
  list(APPEND _lorapp_torch_hints "${Torch_DIR}/../../..")
endif()
foreach(prefix IN LISTS CMAKE_PREFIX_PATH)
  # share/cmake of a wheel's torch folder is a common way to point at it.
  list(APPEND _lorapp_torch_hints "${prefix}" "${prefix}/torch" "${prefix}/../..")
endforeach()

find_path(LORAPP_TORCH_INCLUDE_DIR torch/csrc/api/include/torch/version.h HINTS ${_lorapp_torch_hints} PATH_SUFFIXES include)
if(NOT LORAPP_TORCH_INCLUDE_DIR)
  find_program(LORAPP_PYTHON NAMES python3 python)
  if(LORAPP_PYTHON)
    # find_spec locates the package without importing it (an import takes seconds and may fail on a machine without CUDA).
    execute_process(
      COMMAND "${LORAPP_PYTHON}" -c "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
      OUTPUT_VARIABLE _lorapp_python_torch OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    find_path(LORAPP_TORCH_INCLUDE_DIR torch/csrc/api/include/torch/version.h HINTS "${_lorapp_python_torch}" PATH_SUFFIXES include)
  endif()
endif()
if(NOT LORAPP_TORCH_INCLUDE_DIR)
  message(FATAL_ERROR "lorapp: LibTorch was not found. Set CMAKE_PREFIX_PATH to a LibTorch folder (the one that holds "
    "include/torch and lib/libtorch_cpu.so), or install the Python package torch, or run cmake/setup.sh.")
endif()
get_filename_component(LORAPP_TORCH_ROOT "${LORAPP_TORCH_INCLUDE_DIR}" DIRECTORY)
find_library(LORAPP_TORCH_CPU_LIBRARY torch_cpu HINTS "${LORAPP_TORCH_ROOT}/lib" NO_DEFAULT_PATH)
find_library(LORAPP_C10_LIBRARY c10 HINTS "${LORAPP_TORCH_ROOT}/lib" NO_DEFAULT_PATH)
if(NOT LORAPP_TORCH_CPU_LIBRARY OR NOT LORAPP_C10_LIBRARY)
  message(FATAL_ERROR "lorapp: ${LORAPP_TORCH_ROOT} has LibTorch's headers but not lib/libtorch_cpu.so and lib/libc10.so")
endif()

file(STRINGS "${LORAPP_TORCH_INCLUDE_DIR}/torch/headeronly/version.h" _lorapp_torch_version
  REGEX "#define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
string(REGEX REPLACE "[^0-9;]" "" _lorapp_torch_version "${_lorapp_torch_version}")
string(REPLACE ";" "." LORAPP_TORCH_VERSION "${_lorapp_torch_version}")

find_package(Threads REQUIRED)
add_library(lorapp::c10 UNKNOWN IMPORTED)
set_target_properties(lorapp::c10 PROPERTIES IMPORTED_LOCATION "${LORAPP_C10_LIBRARY}")
add_library(lorapp::torch UNKNOWN IMPORTED)
set_target_properties(lorapp::torch PROPERTIES
  IMPORTED_LOCATION "${LORAPP_TORCH_CPU_LIBRARY}"
  INTERFACE_INCLUDE_DIRECTORIES "${LORAPP_TORCH_INCLUDE_DIR};${LORAPP_TORCH_INCLUDE_DIR}/torch/csrc/api/include"
  INTERFACE_LINK_LIBRARIES "lorapp::c10;Threads::Threads")
message(STATUS "lorapp: LibTorch ${LORAPP_TORCH_VERSION} in ${LORAPP_TORCH_ROOT}")
