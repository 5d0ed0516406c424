// Cuts products into blocks of rows and ranges of columns; kernels/product.inl does the rest.
#include "quant/packed_product.hpp"

#include "kernels/product_args.hpp"
#include "quant/backend.hpp"
#include "quant/float_type.hpp"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>

namespace lorapp::detail {
namespace {

// Rows that are packed at a time: with 192 words of each, less than half of a 1 MiB L2 cache.
constexpr std::int64_t kRowBlock = 480;
// Columns that are summed at a time: their sums fill the other half.
constexpr std::int64_t kSumColumns = 256;
// Multiplications that a thread takes at least.
constexpr std::int64_t kGrain = 1 << 18;

std::int64_t grain_for(std::int64_t work_of_one) {
  return std::max<std::int64_t>(1, kGrain / std::max<std::int64_t>(1, work_of_one));
}

at::Tensor plain_rows(const at::Tensor& x) {
  at::Tensor rows = x.scalar_type() == at::kDouble ? x.to(at::kFloat) : x;
  rows = rows.reshape({-1, x.size(-1)});
  return rows.stride(1) == 1 ? rows : rows.contiguous();
}

at::Tensor vector_product(const at::Tensor& x,
                          const kernels::PackedWeight& w,
                          const float* bias,
                          at::ScalarType compute_dtype) {
  const auto& table = kernel_table();
  const at::Tensor wide = x.to(compute_dtype).to(at::kFloat).contiguous();
  const at::Tensor y = at::empty({x.size(0), w.rows}, at::kFloat);
  at::parallel_for(0, kernels::panels_of(w.rows), grain_for(kernels::kPanelRows * w.columns),
                   [&](std::int64_t begin, std::int64_t end) {
                     table.vector_product({
                         .x = wide.const_data_ptr<float>(),
                         .rows = x.size(0),
                         .w = &w,
                         .first_panel = begin,
                         .last_panel = end,
                         .bias = bias,
                         .y = y.mutable_data_ptr<float>(),
                         .y_stride = w.rows,
                     });
                   });
  return y.to(compute_dtype);
}

// One block of rows.
void product(const at::Tensor& x,
             const kernels::PackedWeight& w,
             bool transposed,
             const float* bias,
             kernels::Float round,
             const at::Tensor& y) {
  const auto& table = kernel_table();
  const kernels::ProductShape shape = table.product_shape(round);
  const std::int64_t rows = x.size(0);
  const auto tiles = kernels::row_tiles(rows, shape.tile_rows);
  const std::int64_t depth =
      transposed ? kernels::panels_of(w.rows) * kernels::kPanelRows : w.columns;
  AlignedBuffer packed(kernels::depth_blocks(shape, depth) * tiles.tiles * tiles.height *
                       kernels::kDepthWords * 4);
  at::parallel_for(0, tiles.tiles, grain_for(tiles.height * depth),
                   [&](std::int64_t begin, std::int64_t end) {
                     table.pack_rows({
                         .x = x.const_data_ptr(),
                         .x_type = float_type(x.scalar_type()),
                         .stride = x.stride(0),
                         .rows = rows,
                         .depth = x.size(1),
                         .padded_depth = depth,
                         .round = round,
                         .first_tile = begin,
                         .last_tile = end,
                         .out = packed.as<std::uint32_t>(),
                     });
                   });
  const std::int64_t columns = y.size(1);
  const std::int64_t column_tiles = (columns + shape.tile_columns - 1) / shape.tile_columns;
  at::parallel_for(0, column_tiles, grain_for(rows * depth * shape.tile_columns),
                   [&](std::int64_t begin, std::int64_t end) {
                     AlignedBuffer block(kernels::kDepthWords * shape.tile_columns * 4);
                     AlignedBuffer sums(tiles.tiles * tiles.height * kSumColumns * 4);
                     table.product({
                         .a = packed.as<std::uint32_t>(),
                         .rows = rows,
                         .w = &w,
                         .transposed = transposed,
                         .a2 = nullptr,
                         .b2 = nullptr,
                         .rank = 0,
                         .b2_stride = 0,
                         .begin = begin * shape.tile_columns,
                         .end = std::min(end * shape.tile_columns, columns),
                         .round = round,
                         .bias = bias,
                         .y = y.mutable_data_ptr(),
                         .y_type = float_type(y.scalar_type()),
                         .y_stride = y.stride(0),
                         .block = block.as<std::uint32_t>(),
                         .sums = sums.as<float>(),
                         .sum_columns = kSumColumns,
                     });
                   });
}

}  // namespace

at::Tensor packed_product(const at::Tensor& x,
                          const QuantizedTensor& weight,
                          bool transposed,
                          const std::optional<at::Tensor>& bias,
                          at::ScalarType compute_dtype) {
  const kernels::PackedWeight w = weight.packed_codes()->view(weight.tables());
  std::vector<std::int64_t> shape = x.sizes().vec();
  shape.back() = transposed ? w.columns : w.rows;
  const at::Tensor rows = plain_rows(x);
  at::Tensor wide_bias;
  if (bias) wide_bias = bias->to(compute_dtype).to(at::kFloat).contiguous();
  const float* b = bias ? wide_bias.const_data_ptr<float>() : nullptr;

  if (!transposed && rows.size(0) > 0 && rows.size(0) <= kernels::kMaxVectorRows) {
    return vector_product(rows, w, b, compute_dtype).to(x.scalar_type()).reshape(shape);
  }
  const at::Tensor y = at::empty({rows.size(0), shape.back()}, rows.options());
  const std::int64_t blocks = (rows.size(0) + kRowBlock - 1) / kRowBlock;
  for (std::int64_t i = 0; i < blocks; ++i) {  // as equal as can be
    const std::int64_t begin = rows.size(0) * i / blocks, end = rows.size(0) * (i + 1) / blocks;
    product(rows.slice(0, begin, end), w, transposed, b, float_type(compute_dtype),
            y.slice(0, begin, end));
  }
  return y.to(x.scalar_type()).reshape(shape);
}

}  // namespace lorapp::detail
