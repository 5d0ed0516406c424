// What all device code stands on: places, runs of elements, sums over threads, launches.
#pragma once

#include "kernels/float16.hpp"
#include "kernels/tile_map.hpp"

#include <cuda_runtime.h>
#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace lorapp::kernels::cuda {

/// The place of the running thread. Nothing else in cuda/ reads its indices.
__device__ inline Place here() { return {blockIdx.x, static_cast<int>(threadIdx.x)}; }

/// Two elements in a word, the first in the low half; rounded to nearest even.
__device__ inline std::uint32_t pair_of(Bf16, float first, float second) {
#if defined(__CUDA_ARCH__)
  const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
#else
  return Bf16::store(first) | static_cast<std::uint32_t>(Bf16::store(second)) << 16;
#endif
}
__device__ inline std::uint32_t pair_of(F16, float first, float second) {
#if defined(__CUDA_ARCH__)
  const __half2 pair = __floats2half2_rn(first, second);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
#else
  return F16::store(first) | static_cast<std::uint32_t>(F16::store(second)) << 16;
#endif
}

/// x rounded to T and back.
template <class T>
__device__ inline float rounded(float x) {
#if defined(__CUDA_ARCH__)
  if constexpr (T::kFloat == Float::bf16) return __bfloat162float(__float2bfloat16_rn(x));
  if constexpr (T::kFloat == Float::f16) return __half2float(__float2half_rn(x));
#endif
  return T::load(T::store(x));
}

/// The elements of a run, as values. Loops over them have constant bounds: a register has no index.
struct Eight {
  float value[kRunElements];
};

LORAPP_HD bool aligned_16(const void* p) { return (reinterpret_cast<std::uintptr_t>(p) & 15) == 0; }

/// Elements p[0] to p[count - 1], zeros behind them.
template <class T>
__device__ inline Eight load_eight(const typename T::Storage* p, int count) {
  Eight x;
  if (count == kRunElements && aligned_16(p)) {
    constexpr int kWords = kRunElements * sizeof(typename T::Storage) / 4;
    std::uint32_t words[kWords];
    for (int i = 0; i < kWords / 4; ++i) {
      const uint4 four = reinterpret_cast<const uint4*>(p)[i];
      words[4 * i] = four.x, words[4 * i + 1] = four.y;
      words[4 * i + 2] = four.z, words[4 * i + 3] = four.w;
    }
    for (int i = 0; i < kRunElements; ++i) {
      if constexpr (kWords == kRunElements) {
        x.value[i] = from_bits(words[i]);
      } else {
        x.value[i] = T::load(static_cast<std::uint16_t>(words[i / 2] >> (i % 2 * 16)));
      }
    }
    return x;
  }
  for (int i = 0; i < kRunElements; ++i) x.value[i] = i < count ? T::load(p[i]) : 0.0f;
  return x;
}

/// p[0] to p[count - 1] = x, rounded to T.
template <class T>
__device__ inline void store_eight(typename T::Storage* p, int count, const Eight& x) {
  if (count == kRunElements && aligned_16(p)) {
    constexpr int kWords = kRunElements * sizeof(typename T::Storage) / 4;
    std::uint32_t words[kWords];
    for (int i = 0; i < kWords; ++i) {
      if constexpr (kWords == kRunElements) {
        words[i] = bits_of(x.value[i]);
      } else {
        words[i] = pair_of(T(), x.value[2 * i], x.value[2 * i + 1]);
      }
    }
    for (int i = 0; i < kWords / 4; ++i) {
      reinterpret_cast<uint4*>(p)[i] =
          make_uint4(words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3]);
    }
    return;
  }
  for (int i = 0; i < kRunElements; ++i) {
    if (i < count) p[i] = T::store(x.value[i]);
  }
}

inline constexpr unsigned kWholeWarp = 0xffffffffu;

/// Over `lanes` neighbouring lanes, a power of two; all of them get it.
__device__ inline float max_over_lanes(float x, int lanes) {
  for (int apart = lanes / 2; apart > 0; apart /= 2) {
    x = fmaxf(x, __shfl_xor_sync(kWholeWarp, x, apart));
  }
  return x;
}
__device__ inline float sum_over_lanes(float x, int lanes) {
  for (int apart = lanes / 2; apart > 0; apart /= 2) x += __shfl_xor_sync(kWholeWarp, x, apart);
  return x;
}

/// Over a block of kBlockThreads, in an order that does not change; all of its threads get it.
/// `space` is shared memory, which is free again after the block's next barrier.
__device__ inline float sum_over_block(Place at, float x, float (&space)[kBlockWarps]) {
  x = sum_over_lanes(x, kWarpLanes);
  if (at.thread % kWarpLanes == 0) space[at.thread / kWarpLanes] = x;
  __syncthreads();
  float total = 0.0f;
  for (int warp = 0; warp < kBlockWarps; ++warp) total += space[warp];
  return total;
}

/// c += A · B of a warp: A [16, 16] and B [16, 8] of bf16 pairs, c of f32, in the registers of
/// mma.m16n8k16 (PTX ISA, "Matrix Fragments for mma.m16n8k16").
__device__ inline void mma_bf16(float (&c)[4],
                                const std::uint32_t (&a)[4],
                                const std::uint32_t (&b)[2]) {
#if defined(__CUDA_ARCH__)
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#elif !defined(__CUDACC__)
  emulation::mma_bf16(c, a, b);
#endif
}

/// The same in double, of which shuffles would take two; in halves.
__device__ inline double sum_over_block(Place at, double x, double (&space)[kBlockThreads]) {
  space[at.thread] = x;
  for (int half = kBlockThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (at.thread < half) space[at.thread] += space[at.thread + half];
  }
  __syncthreads();
  return space[0];
}

// ---- launches, on the host ------------------------------------------------------------------

template <class P>
struct SameType {
  using Type = P;
};

/// Starts `blocks` blocks of kBlockThreads on a stream; returns a cudaError_t.
template <class... P>
int launch(void (*kernel)(P...),
           std::int64_t blocks,
           void* stream,
           const typename SameType<P>::Type&... args) {
  if (blocks == 0) return cudaSuccess;
  if (blocks > 0x7fffffff) return cudaErrorInvalidValue;
  const dim3 grid(static_cast<unsigned>(blocks)), threads(kBlockThreads);
#if defined(__CUDACC__)
  const void* pointers[] = {&args...};
  const cudaError_t error =
      cudaLaunchKernel(reinterpret_cast<const void*>(kernel), grid, threads,
                       const_cast<void**>(pointers), 0, static_cast<cudaStream_t>(stream));
  // The caller gets it; else the next one who asks CUDA would get it too.
  if (error != cudaSuccess) cudaGetLastError();
  return error;
#else
  return emulation::run(
      grid, threads, [&] { kernel(args...); }, stream);
#endif
}

/// Calls f with the element type that `type` names.
template <class F>
int with_type(Float type, F f) {
  switch (type) {
    case Float::bf16:
      return f(Bf16());
    case Float::f16:
      return f(F16());
    default:
      return f(F32());
  }
}

}  // namespace lorapp::kernels::cuda
