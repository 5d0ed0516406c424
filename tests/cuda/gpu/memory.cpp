// device_memory.hpp for a GPU.
#include "cuda/device_memory.hpp"
#include "cuda/emulation_order.hpp"

#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>

void emulation::set_order(const Order&) {}  // a GPU has its own

namespace lorapp::test {
namespace {

void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) {
    throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
  }
}

}  // namespace

void* device_allocate(std::size_t bytes) {
  void* p = nullptr;
  check(cudaMalloc(&p, bytes > 0 ? bytes : 1), "cudaMalloc");
  return p;
}
void device_free(void* p) { cudaFree(p); }
void copy_to_device(void* to, const void* from, std::size_t bytes) {
  check(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice), "copying to the device");
}
void copy_to_host(void* to, const void* from, std::size_t bytes) {
  check(cudaDeviceSynchronize(), "a kernel");
  check(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost), "copying from the device");
}

}  // namespace lorapp::test
