# What bench/gpu/peers.py computes with, on the CPU: the kernels emulated beside bitsandbytes, peft and PyTorch; then its table's rules.
# cmake -DROOT=<source folder> -DLIBRARY=<bench/gpu/peers.cpp over the emulation> -P peers_check.cmake
cmake_minimum_required(VERSION 3.25)
if(NOT DEFINED ENV{LORAPP_PEERS_PYTHON})
  execute_process(COMMAND "${CMAKE_COMMAND}" -E echo "skipped: LORAPP_PEERS_PYTHON names no python that has torch, bitsandbytes and peft")
  return()
endif()
foreach(arguments "bench/gpu/peers.py;${LIBRARY};--check" "tests/cuda/peers_table_test.py")
  execute_process(COMMAND "$ENV{LORAPP_PEERS_PYTHON}" ${arguments} WORKING_DIRECTORY "${ROOT}"
    OUTPUT_VARIABLE said ERROR_VARIABLE said RESULT_VARIABLE status)
  message(STATUS "${said}")
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "${arguments}: status ${status}")
  endif()
endforeach()
