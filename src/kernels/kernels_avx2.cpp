// The AVX2 table (with FMA and F16C: every AVX2 CPU has them).
#include "kernels/simd_avx2.hpp"

#include "kernels/kernels.inl"

LORAPP_DEFINE_KERNEL_TABLE(avx2, kAvx2 | kFma | kF16c)
