# The programs for a GPU build by themselves, as tests/gpu.sh and bench/gpu.sh build them, and without a GPU end as skipped.
# cmake -DROOT=<source folder> -DWORK=<folder> -DNVCC=<nvcc> -P standalone.cmake
cmake_minimum_required(VERSION 3.25)
foreach(program tests/cuda/gpu:lorapp_test_gpu bench/gpu:gpu_kernels)
  string(REPLACE ":" ";" parts "${program}")
  list(GET parts 0 folder)
  list(GET parts 1 name)
  set(build "${WORK}/${name}")
  execute_process(COMMAND "${CMAKE_COMMAND}" -S "${ROOT}/${folder}" -B "${build}" -DCMAKE_BUILD_TYPE=Release
    "-DCMAKE_CUDA_COMPILER=${NVCC}" -DCMAKE_CUDA_ARCHITECTURES=90a COMMAND_ERROR_IS_FATAL ANY)
  execute_process(COMMAND "${CMAKE_COMMAND}" --build "${build}" COMMAND_ERROR_IS_FATAL ANY)
  execute_process(COMMAND "${CMAKE_COMMAND}" -E env CUDA_VISIBLE_DEVICES= "${build}/${name}" OUTPUT_VARIABLE said RESULT_VARIABLE status)
  if(NOT status EQUAL 77 OR NOT said MATCHES "^skipped: no GPU")
    message(FATAL_ERROR "${name}: status ${status}, expected 77; it said: ${said}")
  endif()
endforeach()
