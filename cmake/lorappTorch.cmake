# Finds LibTorch without the side effects of find_package(Torch), and defines the target lorapp::torch.
#
# A CPU build links libtorch_cpu and libc10 only, so that it needs no CUDA toolkit even where LibTorch is the CUDA package.
# A CUDA build adds lorappTorchCuda.cmake.
# Searched in order: TORCH_ROOT, Torch_DIR, CMAKE_PREFIX_PATH, the torch package of the python3 on PATH.
# The same file is installed with the package, so that a consumer's build finds its own LibTorch the same way.
if(TARGET lorapp::torch)
  return()
endif()

set(_lorapp_torch_named ${TORCH_ROOT} $ENV{TORCH_ROOT})
if(Torch_DIR)
  list(APPEND _lorapp_torch_named "${Torch_DIR}/../../..")
endif()
set(_lorapp_torch_hints ${_lorapp_torch_named})
string(REPLACE ":" ";" _lorapp_prefixes "$ENV{CMAKE_PREFIX_PATH}")
foreach(prefix IN LISTS CMAKE_PREFIX_PATH _lorapp_prefixes)
  # share/cmake of a Python package's torch folder is a common way to point at it.
  list(APPEND _lorapp_torch_hints "${prefix}" "${prefix}/torch" "${prefix}/../..")
endforeach()

# A name given now wins over what an earlier run found.
list(JOIN _lorapp_torch_named ";" _lorapp_torch_named)
if(NOT _lorapp_torch_named STREQUAL "${LORAPP_TORCH_NAMED}")
  unset(LORAPP_TORCH_INCLUDE_DIR CACHE)
  unset(LORAPP_TORCH_CPU_LIBRARY CACHE)
  unset(LORAPP_C10_LIBRARY CACHE)
  unset(LORAPP_TORCH_LINKS CACHE)
  unset(LORAPP_TORCH_CUDA_LINKS CACHE)
  set(LORAPP_TORCH_NAMED "${_lorapp_torch_named}" CACHE INTERNAL "TORCH_ROOT and Torch_DIR of the last run")
endif()

set(_lorapp_torch_header torch/csrc/api/include/torch/version.h)
find_path(LORAPP_TORCH_INCLUDE_DIR ${_lorapp_torch_header} HINTS ${_lorapp_torch_hints} PATH_SUFFIXES include)
if(NOT LORAPP_TORCH_INCLUDE_DIR)
  find_program(LORAPP_PYTHON NAMES python3 python)
  mark_as_advanced(LORAPP_PYTHON)
  if(LORAPP_PYTHON)
    # find_spec locates the package without importing it: an import takes seconds and needs the whole package.
    execute_process(
      COMMAND "${LORAPP_PYTHON}" -c "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
      OUTPUT_VARIABLE _lorapp_python_torch OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    find_path(LORAPP_TORCH_INCLUDE_DIR ${_lorapp_torch_header} HINTS "${_lorapp_python_torch}" PATH_SUFFIXES include)
  endif()
endif()
mark_as_advanced(LORAPP_TORCH_INCLUDE_DIR)
if(NOT LORAPP_TORCH_INCLUDE_DIR)
  message(FATAL_ERROR "lorapp: LibTorch was not found. Set TORCH_ROOT to the folder that holds include/torch and "
    "lib/libtorch_cpu.so, or install the Python package torch, or run cmake/setup.sh of lorapp's sources.")
endif()
get_filename_component(LORAPP_TORCH_ROOT "${LORAPP_TORCH_INCLUDE_DIR}" DIRECTORY)
find_library(LORAPP_TORCH_CPU_LIBRARY torch_cpu HINTS "${LORAPP_TORCH_ROOT}/lib" NO_DEFAULT_PATH)
find_library(LORAPP_C10_LIBRARY c10 HINTS "${LORAPP_TORCH_ROOT}/lib" NO_DEFAULT_PATH)
mark_as_advanced(LORAPP_TORCH_CPU_LIBRARY LORAPP_C10_LIBRARY)
if(NOT LORAPP_TORCH_CPU_LIBRARY OR NOT LORAPP_C10_LIBRARY)
  message(FATAL_ERROR "lorapp: ${LORAPP_TORCH_ROOT} has LibTorch's headers but not lib/libtorch_cpu.so and lib/libc10.so")
endif()

set(_lorapp_torch_version_file "${LORAPP_TORCH_INCLUDE_DIR}/torch/headeronly/version.h")
if(NOT EXISTS "${_lorapp_torch_version_file}")
  message(FATAL_ERROR "lorapp: the LibTorch in ${LORAPP_TORCH_ROOT} is too old (it has no torch/headeronly/version.h); "
    "lorapp is tested with 2.11")
endif()
file(STRINGS "${_lorapp_torch_version_file}" _lorapp_torch_version REGEX "#define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
string(REGEX REPLACE "[^0-9;]" "" _lorapp_torch_version "${_lorapp_torch_version}")
string(REPLACE ";" "." LORAPP_TORCH_VERSION "${_lorapp_torch_version}")

find_package(Threads REQUIRED)
add_library(lorapp::c10 UNKNOWN IMPORTED GLOBAL)
set_target_properties(lorapp::c10 PROPERTIES IMPORTED_LOCATION "${LORAPP_C10_LIBRARY}")
add_library(lorapp::torch UNKNOWN IMPORTED GLOBAL)
set_target_properties(lorapp::torch PROPERTIES
  IMPORTED_LOCATION "${LORAPP_TORCH_CPU_LIBRARY}"
  INTERFACE_INCLUDE_DIRECTORIES "${LORAPP_TORCH_INCLUDE_DIR};${LORAPP_TORCH_INCLUDE_DIR}/torch/csrc/api/include"
  INTERFACE_LINK_LIBRARIES "lorapp::c10;Threads::Threads")

# at::parallel_for is a template that uses threads only where it is compiled with OpenMP, and it must be LibTorch's own
# OpenMP: a second one would have threads of its own. Beside LibTorch lies GNU's, under its own name or with a hash in it.
file(GLOB _lorapp_gomp "${LORAPP_TORCH_ROOT}/lib/libgomp*.so*" "${LORAPP_TORCH_ROOT}/../torch.libs/libgomp*.so*")
if(_lorapp_gomp)
  list(GET _lorapp_gomp 0 _lorapp_gomp)
  add_library(lorapp::gomp UNKNOWN IMPORTED GLOBAL)
  set_target_properties(lorapp::gomp PROPERTIES IMPORTED_LOCATION "${_lorapp_gomp}")
  set_property(TARGET lorapp::torch APPEND PROPERTY INTERFACE_LINK_LIBRARIES lorapp::gomp)
endif()

# lorapp_probe_torch(<cache variable> <problem> library…): whether a program links with them; if not, why. A LibTorch whose
# own companions are missing (CUDA libraries beside a Python package) would fail at every later link.
function(lorapp_probe_torch links problem)
  set(${problem} "" PARENT_SCOPE)
  if(${links})
    return()
  endif()
  set(probe "${CMAKE_CURRENT_BINARY_DIR}/CMakeFiles/lorapp_torch_probe")
  file(WRITE "${probe}/probe.cpp" "int main() { return 0; }\n")
  try_compile(${links} "${probe}/build" SOURCES "${probe}/probe.cpp"
    LINK_OPTIONS -Wl,--no-as-needed LINK_LIBRARIES ${ARGN} OUTPUT_VARIABLE output)
  if(${links})
    return()
  endif()
  string(REGEX MATCHALL "[^ \t\n]+, needed by [^\n]*not found" lost "${output}")
  list(TRANSFORM lost REPLACE ", needed by.*" "")
  list(REMOVE_DUPLICATES lost)
  if(lost)
    list(JOIN lost ", " lost)
    set(output "It needs ${lost}, which are not there; the Python package has them in its nvidia-* companions.")
  endif()
  set(${problem} "a program does not link with the LibTorch in ${LORAPP_TORCH_ROOT}. ${output}" PARENT_SCOPE)
endfunction()

lorapp_probe_torch(LORAPP_TORCH_LINKS _lorapp_torch_problem "${LORAPP_TORCH_CPU_LIBRARY}" "${LORAPP_C10_LIBRARY}")
if(_lorapp_torch_problem)
  message(FATAL_ERROR "lorapp: ${_lorapp_torch_problem}")
endif()
message(STATUS "lorapp: LibTorch ${LORAPP_TORCH_VERSION} in ${LORAPP_TORCH_ROOT}")
