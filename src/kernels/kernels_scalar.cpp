// The reference table: no instruction set beyond the compiler's default.
#include "kernels/simd_scalar.hpp"

#include "kernels/kernels.inl"

LORAPP_DEFINE_KERNEL_TABLE(scalar, 0)
