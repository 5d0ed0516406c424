// As much of CUDA as the kernels of cuda/ use, on the CPU: every thread of a block is a fiber,
// barriers and shuffles change between them. In the place of CUDA's header when a test compiles a
// .cu file as C++. Blocks run one behind the other.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __shared__ static  // kept from block to block: uninitialized memory is never seen as such
#define __grid_constant__
#define __launch_bounds__(...)

struct dim3 {
  unsigned x, y, z;
  explicit dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct uint3 {
  unsigned x, y, z;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
struct alignas(8) uint2 {
  unsigned x, y;
};

enum cudaError_t : int { cudaSuccess = 0, cudaErrorInvalidValue = 1 };
inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : "invalid argument";
}
inline cudaError_t cudaGetLastError() { return cudaSuccess; }

// One GPU, an H200 by its facts.
struct cudaDeviceProp {
  char name[256];
  int major, minor, multiProcessorCount;
  std::size_t totalGlobalMem;
};
inline cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {"emulated GPU", 9, 0, 132, std::size_t{1} << 30};
  return cudaSuccess;
}
inline cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
inline cudaError_t cudaRuntimeGetVersion(int* version) { return cudaDriverGetVersion(version); }

namespace emulation {

struct Position {
  uint3 thread, block;
};
/// Of the running fiber.
const Position& position();

/// Runs a grid of one dimension. Throws std::logic_error where a thread of a block has ended, or
/// waits for something else, while others wait for it; which is undefined in CUDA.
int run(dim3 grid, dim3 block, const std::function<void()>& kernel, void* stream);

void sync_block();
void sync_warp();
/// result = the value that lane `source` of the warp gave.
void shuffle(const void* value, void* result, std::size_t size, int source);
int lane();
/// mma.m16n8k16 of the warp.
void mma_bf16(float (&c)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]);

}  // namespace emulation

#define threadIdx (::emulation::position().thread)
#define blockIdx (::emulation::position().block)

inline void __syncthreads() { emulation::sync_block(); }
inline void __syncwarp(unsigned = 0xffffffffu) { emulation::sync_warp(); }

template <class T>
T __shfl_sync(unsigned, T value, int source) {
  T result;
  emulation::shuffle(&value, &result, sizeof value, source);
  return result;
}
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return __shfl_sync(0xffffffffu, value, emulation::lane() ^ mask);
}

// Fibers change at barriers only.
template <class T>
T atomicMin(T* p, T value) {
  const T old = *p;
  if (value < old) *p = value;
  return old;
}
