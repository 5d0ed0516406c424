# What LORAPP_CUDA makes of a machine, at configure time: a LibTorch put together from this one and made-up CUDA parts, an nvcc that
# only says it is one. cmake -DROOT=<sources> -DWORK=<scratch> -DTORCH=<LibTorch> -DTOOLS=<-D…;…> -P cuda.cmake
cmake_minimum_required(VERSION 3.25)
file(REMOVE_RECURSE "${WORK}")
set(torch "${WORK}/site/torch")
set(nvcc "${WORK}/toolkit/bin/nvcc")

# configure(<status> <what the output holds> -D…): a tree of its own that ends so.
function(configure expected message)
  file(REMOVE_RECURSE "${WORK}/build")
  execute_process(
    COMMAND ${CMAKE_COMMAND} -G Ninja -S "${ROOT}" -B "${WORK}/build" "-DTORCH_ROOT=${torch}" ${TOOLS} -DCMAKE_BUILD_TYPE=Release
      -DLORAPP_BUILD_TESTS=OFF -DLORAPP_BUILD_EXAMPLES=OFF -DLORAPP_BUILD_BENCH=OFF -DLORAPP_ISAS=scalar ${ARGN}
    RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)
  string(REGEX REPLACE "[ \n]+" " " one_line "${output}")  # CMake breaks the lines of its errors
  if(status EQUAL 0)
    set(status good)
  else()
    set(status bad)
  endif()
  if(NOT status STREQUAL expected OR NOT one_line MATCHES "${message}")
    message(FATAL_ERROR "${ARGN}: expected a ${expected} end and \"${message}\", found a ${status} one and:\n${output}")
  endif()
  if(status STREQUAL "good")
    file(STRINGS "${WORK}/build/lorappConfig.cmake" cuda REGEX "^set\\(lorapp_CUDA ")
    file(READ "${WORK}/build/build.ninja" text)
    if(NOT cuda STREQUAL "set(lorapp_CUDA OFF)" OR NOT text MATCHES "cuda_stub\\.cpp" OR text MATCHES "libtorch_cuda|quantize\\.cu\\.o")
      message(FATAL_ERROR "${ARGN}: this is no CPU build")
    endif()
  endif()
endfunction()

# library(<file> <library it needs>…): a shared object that needs those beside it.
function(library file)
  file(WRITE "${WORK}/empty.cpp" "")
  cmake_path(GET file FILENAME name)
  execute_process(COMMAND "${CXX}" -shared -fPIC -x c++ "${WORK}/empty.cpp" -x none -o "${file}" -Wl,-soname,${name} -Wl,--no-as-needed ${ARGN}
    COMMAND_ERROR_IS_FATAL ANY)
endfunction()

# A CPU build of LibTorch: the libraries of this one, with what lies around them, and none of CUDA's.
file(MAKE_DIRECTORY "${torch}/lib")
file(CREATE_LINK "${TORCH}/include" "${torch}/include" SYMBOLIC)
file(GLOB libraries "${TORCH}/lib/libtorch_cpu.so" "${TORCH}/lib/libc10.so" "${TORCH}/lib/libgomp*")
foreach(file IN LISTS libraries)
  cmake_path(GET file FILENAME name)
  file(CREATE_LINK "${file}" "${torch}/lib/${name}" SYMBOLIC)
endforeach()
foreach(folder nvidia torch.libs)
  if(EXISTS "${TORCH}/../${folder}")
    file(CREATE_LINK "${TORCH}/../${folder}" "${WORK}/site/${folder}" SYMBOLIC)
  endif()
endforeach()
file(WRITE "${nvcc}" "#!/bin/sh\nif [ \"$1\" = --version ]; then echo 'Cuda compilation tools, release 13.0, V13.0.88'; fi\n")
file(CHMOD "${nvcc}" PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE)

set(no_cuda_part "is a CPU build: it has no lib/libtorch_cuda\\.so and lib/libc10_cuda\\.so\\. Name a CUDA build of it with TORCH_ROOT")
configure(bad "LORAPP_CUDA=ON, but the LibTorch in [^ ]+/site/torch ${no_cuda_part}" -DLORAPP_CUDA=ON "-DLORAPP_NVCC=${nvcc}")
configure(good "LORAPP_CUDA=AUTO is OFF: the LibTorch in [^ ]+/site/torch ${no_cuda_part}" "-DLORAPP_NVCC=${nvcc}")
configure(bad "expects compute capabilities from 8\\.0, such as 80;90 or 90a, found \"75\"" -DLORAPP_CUDA=ON "-DLORAPP_NVCC=${nvcc}"
  -DLORAPP_CUDA_ARCHS=75)
configure(bad "LORAPP_CUDA=ON, but /bin/false --version does not answer as nvcc does" -DLORAPP_CUDA=ON -DLORAPP_NVCC=/bin/false)

# With CUDA parts that need a library which is gone. Names with a hash, as in LibTorch's archives: libtorch_cpu may need the others.
foreach(name libcudart-0a1b2c3d.so.13 libcublasLt-0a1b2c3d.so.13 libabsent.so.1)
  library("${torch}/lib/${name}")
endforeach()
library("${torch}/lib/libc10_cuda.so" "${torch}/lib/libcudart-0a1b2c3d.so.13")
library("${torch}/lib/libtorch_cuda.so" "${torch}/lib/libabsent.so.1")
file(REMOVE "${torch}/lib/libabsent.so.1")
set(lost "a program does not link with the LibTorch in [^ ]+/site/torch\\. It needs libabsent\\.so\\.1, which are not there")
configure(good "LORAPP_CUDA=AUTO is OFF: ${lost}" "-DLORAPP_NVCC=${nvcc}")
configure(bad "LORAPP_CUDA=ON, but ${lost}" -DLORAPP_CUDA=ON "-DLORAPP_NVCC=${nvcc}")

# Of another CUDA than nvcc's.
library("${torch}/lib/libcudart-0a1b2c3d.so.12")
library("${torch}/lib/libc10_cuda.so" "${torch}/lib/libcudart-0a1b2c3d.so.12")
configure(good "LORAPP_CUDA=AUTO is OFF: [^.]* is made with CUDA 12 and the kernels with CUDA 13" "-DLORAPP_NVCC=${nvcc}")
