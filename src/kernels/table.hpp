// KernelTable: the CPU kernels of one instruction set, as pointers to plain functions.
// Raw pointers and sizes; no torch, no exception, no allocation, no thread. Arguments are checked
// above.
#pragma once

#include <lorapp/quant/double_quant.hpp>
#include <lorapp/quant/nf4.hpp>

#include <cstdint>

namespace lorapp::kernels {

/// Element types of weights. 16-bit ones travel as std::uint16_t.
enum class Float : std::uint8_t { f32, bf16, f16 };

/// Weights → codes and absmax. `x` begins at a block's first element; a last block with fewer than
/// `blocksize` (even) elements is the tensor's short one and is divided rather than multiplied.
struct QuantizeArgs {
  const void* x;
  Float x_type;
  std::int64_t n;
  std::int64_t blocksize;
  const Codebook4* book;
  std::uint8_t* codes;  // [ceil(n / 2)]; an odd tail is padded with the code of 0
  float* absmax;        // [ceil(n / blocksize)]
};

/// Codes and absmax → weights: value[code] · absmax in f32, rounded to `via`, then converted to the
/// type of `out`. `codes` begins with a block's first element.
struct DequantizeArgs {
  const std::uint8_t* codes;
  const float* absmax;
  std::int64_t n;
  std::int64_t blocksize;
  const float* value;  // [16]
  Float via;
  Float out_type;
  void* out;  // [n]
};

/// absmax → 8-bit codes around `offset`; the short last block as in QuantizeArgs.
struct NestedQuantizeArgs {
  const float* absmax;
  std::int64_t n;
  std::int64_t blocksize;
  const DynamicMap* map;
  float offset;
  std::uint8_t* codes;   // [n]
  float* nested_absmax;  // [ceil(n / blocksize)]
};

/// 8-bit codes → absmax. `first` is the index of codes[0] in the whole tensor.
struct NestedExpandArgs {
  const std::uint8_t* codes;
  const float* nested_absmax;  // of the whole tensor
  std::int64_t first;
  std::int64_t n;
  std::int64_t blocksize;
  const float* map;  // [256]
  float offset;
  float* absmax;  // [n]
};

/// Rows of weights → 8-bit codes and one absmax each (int8.hpp).
struct QuantizeInt8Args {
  const void* x;
  Float x_type;
  std::int64_t rows;
  std::int64_t columns;
  std::int64_t stride;  // of x, elements from row to row
  std::int8_t* codes;   // [rows, columns]
  float* absmax;        // [rows]
};

struct ProductShape;
struct PackRowsArgs;
struct ProductArgs;
struct VectorProductArgs;
struct FixRowsArgs;
struct RmsNormArgs;
struct RmsNormBackwardArgs;
struct RotateArgs;
struct SwiGluArgs;
struct SwiGluBackwardArgs;
struct CrossEntropyArgs;
struct AdamWArgs;
struct AdamW8bitArgs;
struct DropoutArgs;
struct AttentionForwardArgs;
struct AttentionBackwardArgs;
struct AttentionDecodeArgs;

/// CPU features, one bit each.
enum Feature : std::uint32_t {
  kAvx2 = 1u << 0,
  kFma = 1u << 1,
  kF16c = 1u << 2,
  kAvx512f = 1u << 3,
  kAvx512bw = 1u << 4,
  kAvx512vl = 1u << 5,
  kAvx512dq = 1u << 6,
  kAvx512bf16 = 1u << 7,
  kAmxBf16 = 1u << 8,
  kAvx512vnni = 1u << 9,
};

/// A null entry means: use the next weaker table's. What codecs write is bit-equal to the scalar
/// table's; products sum in an order of their own (product_args.hpp).
struct KernelTable {
  const char* name;
  std::uint32_t required;      // Feature bits
  const std::uint64_t* calls;  // how many kernels of this table have run; read with relaxed order

  /// Returns -1, or the index of the first element that is not finite; then the outputs are not
  /// whole.
  std::int64_t (*quantize_4bit)(const QuantizeArgs&);
  void (*dequantize_4bit)(const DequantizeArgs&);
  void (*quantize_nested)(const NestedQuantizeArgs&);
  void (*expand_nested)(const NestedExpandArgs&);

  // The products belong together: an operand that one table has packed, it alone reads.
  ProductShape (*product_shape)(Float round) = nullptr;
  void (*pack_rows)(const PackRowsArgs&) = nullptr;
  void (*product)(const ProductArgs&) = nullptr;
  void (*vector_product)(const VectorProductArgs&) = nullptr;
  /// Null where vector_product has no integers. Returns false, and the outputs are not whole, where
  /// a span of x has a number that is not finite, or whose scale float32 might not hold.
  bool (*fix_rows)(const FixRowsArgs&) = nullptr;

  // Rows and flat buffers (rows_args.hpp).
  void (*rms_norm)(const RmsNormArgs&) = nullptr;
  void (*rms_norm_backward)(const RmsNormBackwardArgs&) = nullptr;
  void (*rotate)(const RotateArgs&) = nullptr;
  void (*swiglu)(const SwiGluArgs&) = nullptr;
  void (*swiglu_backward)(const SwiGluBackwardArgs&) = nullptr;
  void (*cross_entropy)(const CrossEntropyArgs&) = nullptr;
  void (*adamw)(const AdamWArgs&) = nullptr;
  double (*sum_of_squares)(const float* x, std::int64_t n) = nullptr;
  void (*dropout)(const DropoutArgs&) = nullptr;
  // attention_args.hpp. The first two return the pairs of a row and a key that they computed.
  std::int64_t (*attention_forward)(const AttentionForwardArgs&) = nullptr;
  std::int64_t (*attention_backward)(const AttentionBackwardArgs&) = nullptr;
  void (*attention_decode)(const AttentionDecodeArgs&) = nullptr;

  /// A codec; returns what quantize_4bit does, an index in [rows, columns].
  std::int64_t (*quantize_int8)(const QuantizeInt8Args&) = nullptr;

  void (*adamw_8bit)(const AdamW8bitArgs&) = nullptr;  // rows_args.hpp
};

const KernelTable& table_scalar();
const KernelTable& table_avx2();
const KernelTable& table_avx512();
const KernelTable& table_avx512vnni();
const KernelTable& table_avx512bf16();
const KernelTable& table_amx();

}  // namespace lorapp::kernels
