// The AVX2 table (with FMA and F16C: every AVX2 CPU has them).
#include "kernels/vec_avx2.hpp"

#include "kernels/kernels.inl"

#include "kernels/attention_decode.inl"
#include "kernels/quantize_int8.inl"
#include "kernels/rows_flat.inl"
#include "kernels/vec_bytes_avx2.hpp"

#include "kernels/fixed_point.inl"

LORAPP_DEFINE_KERNEL_TABLE(avx2,
                           kAvx2 | kFma | kF16c,
                           LORAPP_PRODUCTS_OF_PARTS,
                           LORAPP_ROWS,
                           LORAPP_ATTENTION,
                           LORAPP_INT8)
