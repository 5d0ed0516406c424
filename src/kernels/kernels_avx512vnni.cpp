// The AVX-512 table on CPUs that multiply bytes: products of a token in integers.
#include "kernels/vec_avx512.hpp"

#include "kernels/kernels.inl"

#include "kernels/attention_decode.inl"
#include "kernels/quantize_int8.inl"
#include "kernels/rows_flat.inl"
#include "kernels/vec_bytes_avx512.hpp"

#include "kernels/fixed_point.inl"

LORAPP_DEFINE_KERNEL_TABLE(avx512vnni,
                           kAvx2 | kFma | kF16c | kAvx512f | kAvx512bw | kAvx512vl | kAvx512dq |
                               kAvx512vnni,
                           LORAPP_PRODUCTS_OF_PARTS,
                           LORAPP_ROWS,
                           LORAPP_ATTENTION,
                           LORAPP_INT8)
