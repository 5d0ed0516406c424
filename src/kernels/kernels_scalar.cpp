// The reference table: no instruction set beyond the compiler's default.
#include "kernels/vec_scalar.hpp"

#include "kernels/kernels.inl"
#include "kernels/vector_product.inl"

#include "kernels/attention_decode.inl"

LORAPP_DEFINE_KERNEL_TABLE(scalar, 0, LORAPP_PRODUCTS, LORAPP_ATTENTION)
