// Splits packing over tiles of rows, and products over tiles of columns.
#include "quant/row_block.hpp"

#include "quant/backend.hpp"
#include "quant/float_type.hpp"
#include "quant/grain.hpp"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <optional>

namespace lorapp::detail {
namespace {

// Columns that a thread sums at a time: for the most rows their sums fill a fourth of an L2 cache
// of 2 MiB. Rows of W as columns are a stream through memory each, which the CPU fetches ahead for
// a few. Columns of W lie beside each other: the more the better, where few rows leave room for
// sums.
std::int64_t sum_columns(bool transposed, const kernels::ProductShape& shape, std::int64_t rows) {
  constexpr std::int64_t kColumns = 256, kSums = kColumns * kRowBlock;
  if (!transposed) return kColumns;
  const std::int64_t tiles = kSums / (kernels::sum_rows(shape, rows) * shape.tile_columns);
  return std::max(tiles * shape.tile_columns, kColumns);
}

// Rows of x in the integers of a packed weight's product. They and the codes' values are rounded to
// 14 bits or more, which is less than rounding weights to bfloat16 does to NF4; FP4's least value,
// 1/192, would lose more.
class RowsInIntegers {
 public:
  RowsInIntegers(const kernels::KernelTable& table,
                 const at::Tensor& x,
                 const kernels::PackedWeight& w)
      : parts_(x.numel() * 2),
        spans_(x.numel() / w.span * static_cast<std::int64_t>(sizeof(kernels::FixedSpan))),
        rows_{parts_.as<std::int8_t>(), spans_.as<kernels::FixedSpan>()},
        whole_(table.fix_rows({x.const_data_ptr<float>(), x.size(0), x.size(1), w.span,
                               parts_.as<std::int8_t>(), spans_.as<kernels::FixedSpan>()})) {}

  static bool suit(const kernels::KernelTable& table,
                   const kernels::PackedWeight* w,
                   at::ScalarType compute_dtype) {
    return table.fix_rows != nullptr && w != nullptr && compute_dtype == at::kBFloat16 &&
           w->span <= kernels::kMaxFixedSpan &&
           std::all_of(w->value, w->value + 16, [](float value) {
             return value == 0.0f || (std::abs(value) >= 0x1p-4f && std::abs(value) <= 1.0f);
           });
  }

  /// Null where x has numbers that the integers cannot stand for.
  const kernels::FixedRows* get() const { return whole_ ? &rows_ : nullptr; }

 private:
  ScratchBuffer parts_, spans_;
  kernels::FixedRows rows_;
  bool whole_;
};

}  // namespace

kernels::DenseMatrix dense_matrix(const at::Tensor& tensor) {
  return {tensor.const_data_ptr(), float_type(tensor.scalar_type()), tensor.size(0), tensor.size(1),
          tensor.stride(0)};
}

at::Tensor matrix_rows(const at::Tensor& x) {
  at::Tensor rows = x.scalar_type() == at::kDouble ? x.to(at::kFloat) : x;
  rows = rows.reshape({-1, x.size(-1)});
  return rows.stride(1) == 1 ? rows : rows.contiguous();
}

at::Tensor vector_product(const at::Tensor& x,
                          const ProductWeight& w,
                          const float* bias,
                          at::ScalarType compute_dtype) {
  const auto& table = kernel_table();
  const at::Tensor wide = x.to(compute_dtype).to(at::kFloat).contiguous();
  const std::int64_t rows = w.packed != nullptr ? w.packed->rows : w.dense->rows;
  const std::int64_t panels = kernels::panels_of(rows);
  const at::Tensor y = at::empty({x.size(0), rows}, at::kFloat);
  std::optional<RowsInIntegers> integers;
  if (RowsInIntegers::suit(table, w.packed, compute_dtype)) {
    integers.emplace(table, wide, *w.packed);
  }
  at::parallel_for(0, panels, grain_for(kernels::kPanelRows * x.size(1), kProductGrain),
                   [&](std::int64_t begin, std::int64_t end) {
                     table.vector_product({
                         .x = wide.const_data_ptr<float>(),
                         .rows = x.size(0),
                         .w = w.packed,
                         .dense = w.dense,
                         .begin = begin * kernels::kPanelRows,
                         .end = std::min(end * kernels::kPanelRows, rows),
                         .bias = bias,
                         .y = y.mutable_data_ptr<float>(),
                         .y_stride = rows,
                         .fixed = integers ? integers->get() : nullptr,
                     });
                   });
  return y;
}

RowBlock::RowBlock(const at::Tensor& x, std::int64_t padded_depth, kernels::Float round)
    : rows_(x.size(0)), depth_(padded_depth), round_(round) {
  const auto& table = kernel_table();
  const kernels::ProductShape shape = table.product_shape(round);
  const auto tiles = kernels::row_tiles(rows_, shape.tile_rows);
  const auto packed = std::make_shared<ScratchBuffer>(
      kernels::depth_blocks(shape, depth_) * tiles.tiles * tiles.height * kernels::kDepthWords * 4);
  at::parallel_for(0, tiles.tiles, grain_for(tiles.height * depth_, kProductGrain),
                   [&](std::int64_t begin, std::int64_t end) {
                     table.pack_rows({
                         .x = x.const_data_ptr(),
                         .x_type = float_type(x.scalar_type()),
                         .stride = x.stride(0),
                         .rows = rows_,
                         .depth = x.size(1),
                         .padded_depth = depth_,
                         .round = round,
                         .first_tile = begin,
                         .last_tile = end,
                         .out = packed->as<std::uint32_t>(),
                     });
                   });
  packed_ = packed;
}

RowBlock RowBlock::as_f32(const at::Tensor& x) const {
  const bool single_words = kernel_table().product_shape(round_).word_elements == 1;
  if (round_ == kernels::Float::f32 || (single_words && float_type(x.scalar_type()) == round_)) {
    RowBlock block = *this;
    block.round_ = kernels::Float::f32;
    return block;
  }
  return RowBlock(x, depth_, kernels::Float::f32);
}

void RowBlock::multiply(const ProductWeight& w,
                        bool transposed,
                        const at::Tensor& y,
                        const float* bias,
                        const LowRankTerm* low_rank) const {
  const auto& table = kernel_table();
  const kernels::ProductShape shape = table.product_shape(round_);
  const std::int64_t columns = y.size(1);
  const std::int64_t column_tiles = (columns + shape.tile_columns - 1) / shape.tile_columns;
  at::parallel_for(
      0, column_tiles, grain_for(rows_ * depth_ * shape.tile_columns, kProductGrain),
      [&](std::int64_t begin, std::int64_t end) {
        const ScratchBuffer block(kernels::kDepthWords * shape.tile_columns * 4);
        const std::int64_t thread_columns =
            std::min(sum_columns(transposed, shape, rows_), (end - begin) * shape.tile_columns);
        const ScratchBuffer sums(kernels::sum_rows(shape, rows_) * thread_columns * 4);
        table.product({
            .a = packed_->as<std::uint32_t>(),
            .rows = rows_,
            .w = w.packed,
            .dense = w.dense,
            .transposed = transposed,
            .a2 = low_rank != nullptr ? low_rank->u.packed_->as<std::uint32_t>() : nullptr,
            .b2 = low_rank != nullptr ? low_rank->b2.const_data_ptr<float>() : nullptr,
            .rank = low_rank != nullptr ? low_rank->b2.size(0) : 0,
            .b2_row_stride = low_rank != nullptr ? low_rank->b2.stride(0) : 0,
            .b2_column_stride = low_rank != nullptr ? low_rank->b2.stride(1) : 0,
            .begin = begin * shape.tile_columns,
            .end = std::min(end * shape.tile_columns, columns),
            .round = round_,
            .bias = bias,
            .y = y.mutable_data_ptr(),
            .y_type = float_type(y.scalar_type()),
            .y_stride = y.stride(0),
            .block = block.as<std::uint32_t>(),
            .sums = sums.as<float>(),
            .sum_columns = thread_columns,
        });
      });
}

}  // namespace lorapp::detail
