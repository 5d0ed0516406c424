// Quantizing and dequantizing on a GPU.
#include "quant/gpu_ops.hpp"

#include "quant/float_type.hpp"
#include "quant/gpu.hpp"
#include "quant/gpu_weight.hpp"

#include <lorapp/quant/double_quant.hpp>

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>

#include <algorithm>
#include <limits>

namespace lorapp::detail {

GpuQuantized gpu_quantize(const at::Tensor& flat, const Codebook4& book, std::int64_t blocksize) {
  const GpuScope scope(flat.device(), "quantize_4bit");
  const std::int64_t n = flat.numel();
  constexpr std::int64_t kNone = std::numeric_limits<std::int64_t>::max();
  GpuQuantized result{
      at::empty({(n + 1) / 2}, flat.options().dtype(at::kByte)),
      at::empty({kernels::ceil_div(n, blocksize)}, flat.options().dtype(at::kFloat)), -1};
  const at::Tensor bad = at::full({1}, kNone, flat.options().dtype(at::kLong));
  scope.check(scope.kernels().quantize_4bit(
                  {
                      .x = flat.const_data_ptr(),
                      .x_type = float_type(flat.scalar_type()),
                      .n = n,
                      .blocksize = blocksize,
                      .book = &book,
                      .codes = result.codes.mutable_data_ptr<std::uint8_t>(),
                      .absmax = result.absmax.mutable_data_ptr<float>(),
                  },
                  // No index is negative, so both types say the same.
                  reinterpret_cast<unsigned long long*>(bad.mutable_data_ptr<std::int64_t>()),
                  scope.stream()),
              "quantize_4bit", n, " weights in blocks of ", blocksize);
  const auto found = bad.item<std::int64_t>();
  if (found != kNone) result.first_not_finite = found;
  return result;
}

void gpu_nest_absmax(QuantizedTensor::Parts& parts) {
  const at::Tensor absmax = parts.absmax;
  const GpuScope scope(absmax.device(), "quantize_4bit");
  const std::int64_t blocks = absmax.numel();
  constexpr DynamicMap map = dynamic_map();
  const at::Tensor offset = at::empty({1}, absmax.options());
  scope.check(scope.kernels().mean(absmax.const_data_ptr<float>(), blocks,
                                   offset.mutable_data_ptr<float>(), scope.stream()),
              "mean", blocks, " scales");
  parts.absmax = at::empty({blocks}, absmax.options().dtype(at::kByte));
  parts.nested_absmax = at::empty({kernels::ceil_div(blocks, kNestedBlocksize)}, absmax.options());
  scope.check(scope.kernels().quantize_nested(
                  {
                      .absmax = absmax.const_data_ptr<float>(),
                      .n = blocks,
                      .blocksize = kNestedBlocksize,
                      .map = &map,
                      .offset = 0.0f,  // where the GPU has it
                      .codes = parts.absmax.mutable_data_ptr<std::uint8_t>(),
                      .nested_absmax = parts.nested_absmax.mutable_data_ptr<float>(),
                  },
                  offset.const_data_ptr<float>(), scope.stream()),
              "quantize_nested", blocks, " scales in blocks of ", kNestedBlocksize);
  const at::Tensor code = at::empty({256}, at::kFloat);
  std::copy_n(map.value, 256, code.mutable_data_ptr<float>());
  parts.nested_code = code.to(absmax.device());
  parts.nested_blocksize = kNestedBlocksize;
  parts.nested_offset = offset.item<float>();
}

void gpu_dequantize(const QuantizedTensor& w, const at::Tensor& out) {
  const GpuScope scope(w.device(), "dequantize_4bit");
  kernels::cuda::DequantizeRowsArgs args = gpu_codes(w);
  args.rows = 1;
  args.columns = args.out_stride = w.numel();
  args.out_type = float_type(out.scalar_type());
  args.out = out.mutable_data_ptr();
  scope.check(scope.kernels().dequantize_4bit(args, scope.stream()), "dequantize_4bit", w.numel(),
              " weights in blocks of ", w.blocksize(), " to ", out.scalar_type());
}

}  // namespace lorapp::detail
