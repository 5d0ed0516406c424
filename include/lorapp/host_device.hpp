// LORAPP_HD: marks arithmetic that host code, every instruction set and CUDA kernels share.
// Always inlined, so that no weak symbol compiled with ISA flags can reach another CPU. C++17.
#pragma once

#if defined(__CUDACC__)
#define LORAPP_HD __host__ __device__ __forceinline__
#elif defined(_MSC_VER)
#define LORAPP_HD __forceinline
#else
#define LORAPP_HD [[gnu::always_inline]] inline
#endif
