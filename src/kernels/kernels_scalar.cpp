// The reference table: no instruction set beyond the compiler's default.
#include "kernels/vec_scalar.hpp"

#include "kernels/kernels.inl"

#include "kernels/adamw_8bit.inl"
#include "kernels/attention_decode.inl"
#include "kernels/quantize_int8.inl"
#include "kernels/rows_flat.inl"
#include "kernels/vector_product.inl"

LORAPP_DEFINE_KERNEL_TABLE(
    scalar, 0, LORAPP_PRODUCTS, LORAPP_ROWS, LORAPP_ATTENTION, LORAPP_INT8, LORAPP_ADAMW_8BIT)
