// The door to the CUDA kernels, as seen by host code: no CUDA header is needed to include it.
// Launchers take device pointers, start work on a stream and return a cudaError_t; they neither
// wait nor allocate. A codebook, a map and code values are the host's.
#pragma once

#include "kernels/rows_args.hpp"
#include "kernels/table.hpp"
#include "kernels/tile_map.hpp"

#include <cstdint>

namespace lorapp::kernels::cuda {

/// The values of the sixteen codes, which travel to device code by value.
struct CodeValues {
  float value[16];
};

/// Codes and absmax of a matrix → its weights, row by row with a distance of `out_stride` elements:
/// value[code] · absmax in f32, rounded to `via`, then converted to `out_type`. The scales are
/// `absmax`, or nested where it is null: absmax of block b is map[nested[b]] ·
/// nested_absmax[b / nested_blocksize] + offset.
struct DequantizeRowsArgs {
  const std::uint8_t* codes;
  std::int64_t rows;
  std::int64_t columns;
  std::int64_t blocksize;  // a power of two, at least 32
  const float* value;      // [16], on the host
  const float* absmax;
  const std::uint8_t* nested;
  const float* nested_absmax;
  std::int64_t nested_blocksize;
  const float* map;  // [256]
  float offset;
  Float via;
  Float out_type;
  void* out;
  std::int64_t out_stride;
};

/// QuantizeArgs. *first_not_finite becomes the least of itself and the index of the first element
/// that is not finite; where there is one, the outputs are not whole.
int quantize_4bit(const QuantizeArgs& args, unsigned long long* first_not_finite, void* stream);

/// *result = the mean of x[0 … n), summed in double in an order that does not change.
int mean(const float* x, std::int64_t n, float* result, void* stream);

/// NestedQuantizeArgs, with the offset where the device has it.
int quantize_nested(const NestedQuantizeArgs& args, const float* offset, void* stream);

/// NestedExpandArgs; the offset is args.offset where `offset` is null.
int expand_nested(const NestedExpandArgs& args, const float* offset, void* stream);

int dequantize_4bit(const DequantizeRowsArgs& args, void* stream);

/// y = x · Wᵀ + bias + u · Bᵀ + added for at most SmallProductMap::kMostTokens rows of bf16. Values
/// of codes are rounded to bf16, their sums over a block of weights multiplied by its absmax in
/// f32; y is rounded once. Columns and blocksize are multiples of 64, W's blocks do not cross rows,
/// its codes and columns are at most SmallProductMap::kMostBytes and kMostColumns, and x and codes
/// lie on multiples of 16 bytes.
struct SmallProductArgs {
  const std::uint16_t* x;  // [tokens, columns]
  std::int64_t tokens;
  const std::uint8_t* codes;
  std::int64_t rows;  // of W
  std::int64_t columns;
  std::int64_t blocksize;
  const float* value;   // [16], on the host
  const float* absmax;  // or null: nested, as in DequantizeRowsArgs
  const std::uint8_t* nested;
  const float* nested_absmax;
  std::int64_t nested_blocksize;
  const float* map;
  float offset;
  const float* bias;  // [rows], or null
  const float* u;     // [tokens, rank], or null: no low-rank term
  const float* b;     // [rows, rank]
  std::int64_t rank;
  const std::uint16_t* added = nullptr;  // [tokens, rows], or null
  std::uint16_t* y;                      // [tokens, rows]
};
int small_product(const SmallProductArgs& args, void* stream);

/// The products of `count` weights, at most kMostSmallProducts, in one launch: by itself a small
/// one would leave most of a GPU idle. Their tokens are as many, and their values of codes the
/// same.
inline constexpr int kMostSmallProducts = JoinedGrids::kMost;
int small_products(const SmallProductArgs* parts, int count, void* stream);

/// u = scale · x · Aᵀ in f32: the low-rank term's part before B.
struct LowRankRowsArgs {
  const std::uint16_t* x;  // [tokens, columns], bf16
  std::int64_t tokens;
  std::int64_t columns;
  const float* a;  // [rank, columns]
  std::int64_t rank;
  float scale;
  float* u;  // [tokens, rank]
};
int low_rank_rows(const LowRankRowsArgs& args, void* stream);

// rows_args.hpp. `scratch` of CrossEntropyArgs is not read; that of RmsNormBackwardArgs is needed
// with a dweight.
int rms_norm(const RmsNormArgs& args, void* stream);
int rms_norm_backward(const RmsNormBackwardArgs& args, void* stream);
int rotate(const RotateArgs& args, void* stream);

/// Rows of `size` elements in the operands of SwiGLU, where gate and up are columns of one product:
/// rows of gate and up begin `stride` elements apart, those of dgate and dup `gradient_stride`, and
/// y and dy have no gaps. Size 0: nothing has.
struct GateRows {
  std::int64_t size = 0;
  std::int64_t stride = 0;
  std::int64_t gradient_stride = 0;
};
int swiglu(const SwiGluArgs& args, void* stream, const GateRows& rows = {});
int swiglu_backward(const SwiGluBackwardArgs& args, void* stream, const GateRows& rows = {});

int cross_entropy(const CrossEntropyArgs& args, void* stream);
int dropout(const DropoutArgs& args, void* stream);

/// Doubles that sum_of_squares writes on its way.
inline constexpr std::int64_t kPartialSums = SumMap::kBlocks;
/// *total = Σ x², in double, in an order that does not depend on the GPU.
int sum_of_squares(const float* x, std::int64_t n, double* partial, double* total, void* stream);

/// Gradients are multiplied by clip_factor(√squares, max_norm) where `squares` is not null; else by
/// AdamWStep::clip.
struct NormClip {
  const double* squares = nullptr;
  double max_norm = 0;
};
int adamw(const AdamWArgs& args, const NormClip& clip, void* stream);
int adamw_8bit(const AdamW8bitArgs& args, const NormClip& clip, void* stream);

/// out[row] = table[ids[row]]; ids are within the table.
struct GatherRowsArgs {
  const void* table;  // [any, size]
  Float type;
  std::int64_t size;
  const std::int64_t* ids;  // [rows]
  std::int64_t rows;
  void* out;  // [rows, size]
};
int gather_rows(const GatherRowsArgs& args, void* stream);

/// A matrix into one of another type, distance of rows and size; what the first does not have is 0.
struct ConvertRowsArgs {
  const void* from;
  Float from_type;
  std::int64_t from_stride;
  std::int64_t from_rows;
  std::int64_t from_size;
  void* to;
  Float to_type;
  std::int64_t to_stride;
  std::int64_t to_rows;
  std::int64_t to_size;
};
int convert_rows(const ConvertRowsArgs& args, void* stream);

}  // namespace lorapp::kernels::cuda
