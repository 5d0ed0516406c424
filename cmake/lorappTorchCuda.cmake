# Adds LibTorch's CUDA part to lorapp::torch, after lorappTorch.cmake, for a lorapp with CUDA kernels; installed with the package.
# lorapp_cuda_major is the major version of the CUDA that compiled the kernels. Sets lorapp_torch_cuda_lacks: what is missing and
# what helps. It is empty where all is there, and else nothing was added.
#
# lorapp links the CUDA runtime and cuBLASLt that LibTorch loads: cuBLAS and cuBLASLt of two versions are not made for one process,
# and so a program needs no CUDA toolkit. They lie in LibTorch's lib folder or in its nvidia-* companions; else they are the toolkit's.
set(lorapp_torch_cuda_lacks "")
if(TARGET lorapp::cudart)
  return()
endif()

set(_lorapp_torch_cuda "${LORAPP_TORCH_ROOT}/lib/libtorch_cuda.so")
set(_lorapp_c10_cuda "${LORAPP_TORCH_ROOT}/lib/libc10_cuda.so")
if(NOT EXISTS "${_lorapp_torch_cuda}" OR NOT EXISTS "${_lorapp_c10_cuda}")
  string(CONCAT lorapp_torch_cuda_lacks "the LibTorch in ${LORAPP_TORCH_ROOT} is a CPU build: it has no lib/libtorch_cuda.so and "
    "lib/libc10_cuda.so. Name a CUDA build of it with TORCH_ROOT; the Python package torch, installed with its dependencies, is one")
  return()
endif()

# What its smaller library asks for says which CUDA it was made with: libcudart.so.13, or a name with a hash in it.
file(STRINGS "${_lorapp_c10_cuda}" _lorapp_cudart REGEX "^libcudart[^/]*\\.so\\.[0-9]+" LIMIT_COUNT 1)
string(REGEX REPLACE ".*\\.so\\.([0-9]+).*" "\\1" _lorapp_torch_cuda_major "${_lorapp_cudart}")
if(NOT _lorapp_torch_cuda_major STREQUAL lorapp_cuda_major)
  string(CONCAT lorapp_torch_cuda_lacks "the LibTorch in ${LORAPP_TORCH_ROOT} is made with CUDA ${_lorapp_torch_cuda_major} and the kernels with CUDA "
    "${lorapp_cuda_major}. Name another LibTorch with TORCH_ROOT, or build lorapp with another toolkit (CUDAToolkit_ROOT)")
  return()
endif()

file(GLOB _lorapp_cuda_folders "${LORAPP_TORCH_ROOT}/../nvidia/*/lib")
foreach(name cudart cublasLt)
  set(_lorapp_cuda_${name} "")
  foreach(folder IN ITEMS "${LORAPP_TORCH_ROOT}/lib" LISTS _lorapp_cuda_folders)
    file(GLOB _lorapp_found_here "${folder}/lib${name}.so.${lorapp_cuda_major}" "${folder}/lib${name}-*.so.${lorapp_cuda_major}*")
    if(_lorapp_found_here AND NOT _lorapp_cuda_${name})
      list(GET _lorapp_found_here 0 _lorapp_cuda_${name})
      get_filename_component(_lorapp_cuda_${name} "${_lorapp_cuda_${name}}" ABSOLUTE)
    endif()
  endforeach()
  if(NOT _lorapp_cuda_${name})
    find_package(CUDAToolkit QUIET)
    if(TARGET CUDA::${name} AND CUDAToolkit_VERSION_MAJOR EQUAL lorapp_cuda_major)
      get_target_property(_lorapp_cuda_${name} CUDA::${name} IMPORTED_LOCATION)
    else()
      string(CONCAT lorapp_torch_cuda_lacks "the LibTorch in ${LORAPP_TORCH_ROOT} needs lib${name}.so.${lorapp_cuda_major}, which is neither "
        "beside it nor in a CUDA toolkit that CMake finds (CUDAToolkit_ROOT). The Python package torch, installed with its dependencies, has it")
      return()
    endif()
  endif()
endforeach()

# A library that is missed for none of its symbols is a warning to the linker, and the end of a program that starts.
lorapp_probe_torch(LORAPP_TORCH_CUDA_LINKS lorapp_torch_cuda_lacks -Wl,--fatal-warnings "${_lorapp_torch_cuda}" "${_lorapp_c10_cuda}"
  "${LORAPP_TORCH_CPU_LIBRARY}" "${LORAPP_C10_LIBRARY}" "${_lorapp_cuda_cudart}" "${_lorapp_cuda_cublasLt}")
if(lorapp_torch_cuda_lacks)
  return()
endif()

foreach(name cudart cublasLt)
  add_library(lorapp::${name} UNKNOWN IMPORTED GLOBAL)
  set_target_properties(lorapp::${name} PROPERTIES IMPORTED_LOCATION "${_lorapp_cuda_${name}}")
endforeach()
# A program names no symbol of libtorch_cuda, but must load it: that is how LibTorch gets its CUDA backend. One item, so that no
# other library comes between the flags, and among the libraries, because options do not pass every static library.
set_property(TARGET lorapp::torch APPEND PROPERTY INTERFACE_LINK_LIBRARIES
  "-Wl,--push-state,--no-as-needed \"${_lorapp_torch_cuda}\" \"${_lorapp_c10_cuda}\" -Wl,--pop-state" lorapp::cublasLt lorapp::cudart)
