# Third-party libraries: the system's package first, else a pinned archive.
# FETCHCONTENT_FULLY_DISCONNECTED=ON forbids fetching; FETCHCONTENT_SOURCE_DIR_<NAME> points at sources that are there.
include(FetchContent)
set(CMAKE_POLICY_DEFAULT_CMP0077 NEW)  # their options follow the variables set here

# Header-only fmt: LibTorch ships other <fmt/…> headers on the include path, and a compiled libfmt would not match them.
set(FMT_INSTALL OFF)
FetchContent_Declare(fmt
  URL https://github.com/fmtlib/fmt/archive/refs/tags/11.1.4.tar.gz
  URL_HASH SHA256=ac366b7b4c2e9f0dde63a59b3feb5ee59b67974b14ee5dc9ea8ad78aa2c1ee1e
  DOWNLOAD_EXTRACT_TIMESTAMP OFF
  FIND_PACKAGE_ARGS 9.1)

set(JSON_BuildTests OFF)
set(JSON_Install OFF)
FetchContent_Declare(nlohmann_json
  URL https://github.com/nlohmann/json/releases/download/v3.11.3/json.tar.xz
  URL_HASH SHA256=d6c65aca6b1ed68e7a182f4757257b107ae403032760ed6ef121c9d55e81757d
  DOWNLOAD_EXTRACT_TIMESTAMP OFF
  FIND_PACKAGE_ARGS 3.11)
FetchContent_MakeAvailable(fmt nlohmann_json)

include(lorappSentencepiece)
set(lorapp_sentencepiece_bundled OFF)
if(NOT TARGET lorapp::sentencepiece)
  set(SPM_ENABLE_SHARED OFF CACHE BOOL "")
  set(SPM_ENABLE_TCMALLOC OFF CACHE BOOL "")
  set(CMAKE_POLICY_VERSION_MINIMUM 3.5)  # it asks for a policy version that new releases of CMake have dropped
  FetchContent_Declare(sentencepiece
    URL https://github.com/google/sentencepiece/archive/refs/tags/v0.2.0.tar.gz
    URL_HASH SHA256=9970f0a0afee1648890293321665e5b2efa04eaec9f1671fcf8048f456f5bb86
    DOWNLOAD_EXTRACT_TIMESTAMP OFF
    SOURCE_SUBDIR none)  # added below instead, so that its programs and install rules stay out
  FetchContent_MakeAvailable(sentencepiece)
  add_subdirectory("${sentencepiece_SOURCE_DIR}" "${sentencepiece_BINARY_DIR}" EXCLUDE_FROM_ALL)
  set_target_properties(sentencepiece-static PROPERTIES POSITION_INDEPENDENT_CODE ON)
  set(lorapp_sentencepiece_bundled ON)
  foreach(part "" _train)  # for programs of this project that use it directly
    add_library(lorapp_sentencepiece${part} INTERFACE)
    target_include_directories(lorapp_sentencepiece${part} SYSTEM INTERFACE "${sentencepiece_SOURCE_DIR}/src")
    target_link_libraries(lorapp_sentencepiece${part} INTERFACE sentencepiece${part}-static)
    add_library(lorapp::sentencepiece${part} ALIAS lorapp_sentencepiece${part})
  endforeach()
endif()

# libcurl comes from the system or not at all: its TLS library and certificates are the system's business.
set(lorapp_hub OFF)
if(NOT LORAPP_HUB STREQUAL "OFF")
  find_package(CURL 7.71 QUIET GLOBAL)  # GLOBAL: a project that has lorapp as a subfolder links it too
  if(CURL_FOUND)
    set(lorapp_hub ON)
  elseif(NOT LORAPP_HUB STREQUAL "AUTO")
    message(FATAL_ERROR "LORAPP_HUB=${LORAPP_HUB}, but libcurl 7.71 or newer was not found (Debian: libcurl4-openssl-dev)")
  endif()
endif()

# lorapp_use_private(target): what the compiled part of the library uses and its interface never shows. Header-only
# libraries come as include folders and not as link dependencies, so that no consumer of the package has to find them.
function(lorapp_use_private target)
  foreach(library fmt::fmt-header-only nlohmann_json::nlohmann_json)
    target_include_directories(${target} SYSTEM PRIVATE $<TARGET_PROPERTY:${library},INTERFACE_INCLUDE_DIRECTORIES>)
  endforeach()
  target_compile_definitions(${target} PRIVATE FMT_HEADER_ONLY=1)
  if(lorapp_sentencepiece_bundled)
    # Its object files become part of lorapp: there is no system library that a consumer could link.
    target_include_directories(${target} SYSTEM PRIVATE "${sentencepiece_SOURCE_DIR}/src")
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:sentencepiece-static>)
  else()
    target_link_libraries(${target} PRIVATE lorapp::sentencepiece)
  endif()
endfunction()

if(LORAPP_BUILD_EXAMPLES)
  FetchContent_Declare(CLI11
    URL https://github.com/CLIUtils/CLI11/archive/refs/tags/v2.4.2.tar.gz
    URL_HASH SHA256=f2d893a65c3b1324c50d4e682c0cdc021dd0477ae2c048544f39eed6654b699a
    DOWNLOAD_EXTRACT_TIMESTAMP OFF
    FIND_PACKAGE_ARGS 2.1)
  FetchContent_MakeAvailable(CLI11)
endif()
if(LORAPP_BUILD_TESTS)
  set(DOCTEST_NO_INSTALL ON)
  set(DOCTEST_WITH_TESTS OFF)
  FetchContent_Declare(doctest
    URL https://github.com/doctest/doctest/archive/refs/tags/v2.4.11.tar.gz
    URL_HASH SHA256=632ed2c05a7f53fa961381497bf8069093f0d6628c5f26286161fbd32a560186
    DOWNLOAD_EXTRACT_TIMESTAMP OFF
    FIND_PACKAGE_ARGS 2.4)
  FetchContent_MakeAvailable(doctest)
  if(doctest_SOURCE_DIR)
    list(APPEND CMAKE_MODULE_PATH "${doctest_SOURCE_DIR}/scripts/cmake")  # doctest_discover_tests
  endif()
endif()
if(LORAPP_BUILD_BENCH)
  set(BENCHMARK_ENABLE_TESTING OFF)
  set(BENCHMARK_ENABLE_INSTALL OFF)
  FetchContent_Declare(benchmark
    URL https://github.com/google/benchmark/archive/refs/tags/v1.8.3.tar.gz
    URL_HASH SHA256=6bc180a57d23d4d9515519f92b0c83d61b05b5bab188961f36ac7b06b0d9e9ce
    DOWNLOAD_EXTRACT_TIMESTAMP OFF
    FIND_PACKAGE_ARGS 1.7)
  FetchContent_MakeAvailable(benchmark)
endif()
