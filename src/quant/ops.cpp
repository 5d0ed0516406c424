// quantize_4bit and dequantize_4bit: arguments checked, blocks split over torch's threads.
// The 4-bit linear is in nf4_linear_fn.cpp.
#include <lorapp/error.hpp>
#include <lorapp/quant/fp4.hpp>
#include <lorapp/quant/ops.hpp>

#include "quant/backend.hpp"
#include "quant/checks.hpp"
#include "quant/float_type.hpp"
#include "quant/gpu.hpp"
#include "quant/gpu_ops.hpp"
#include "quant/grain.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <limits>

namespace lorapp {
namespace {

std::string position(std::int64_t flat, at::IntArrayRef sizes) {
  std::vector<std::int64_t> index(sizes.size());
  for (std::size_t d = sizes.size(); d-- > 0;) {
    index[d] = flat % sizes[d];
    flat /= sizes[d];
  }
  std::string text = "[";
  for (std::size_t d = 0; d < index.size(); ++d) {
    text += (d == 0 ? "" : ", ") + std::to_string(index[d]);
  }
  return text + "]";
}

// Codes and absmax of all blocks. Returns the index of the first weight that is not finite, or -1.
std::int64_t quantize_blocks(const at::Tensor& w,
                             const Codebook4& book,
                             std::int64_t blocksize,
                             const at::Tensor& codes,
                             const at::Tensor& absmax) {
  const auto& kernel = detail::kernel_table();
  const std::int64_t n = w.numel(), blocks = absmax.numel();
  const auto* x = static_cast<const char*>(w.const_data_ptr());
  const auto element_size = static_cast<std::int64_t>(w.element_size());
  constexpr std::int64_t kNone = std::numeric_limits<std::int64_t>::max();
  std::atomic<std::int64_t> first_bad{kNone};
  at::parallel_for(
      0, blocks, detail::grain_for(blocksize, detail::kCodeGrain),
      [&](std::int64_t begin, std::int64_t end) {
        const std::int64_t offset = begin * blocksize;
        const std::int64_t bad = kernel.quantize_4bit({
            .x = x + offset * element_size,
            .x_type = detail::float_type(w.scalar_type()),
            .n = std::min(end * blocksize, n) - offset,
            .blocksize = blocksize,
            .book = &book,
            .codes = codes.mutable_data_ptr<std::uint8_t>() + offset / 2,
            .absmax = absmax.mutable_data_ptr<float>() + begin,
        });
        if (bad < 0) return;
        std::int64_t seen = first_bad.load();
        while (offset + bad < seen && !first_bad.compare_exchange_weak(seen, offset + bad)) {
        }
      });
  const std::int64_t bad = first_bad.load();
  return bad == kNone ? -1 : bad;
}

// Replaces the f32 absmax by 8-bit codes.
void nest_absmax(QuantizedTensor::Parts& parts) {
  const at::Tensor absmax = parts.absmax;
  const std::int64_t blocks = absmax.numel();
  const float* values = absmax.const_data_ptr<float>();
  double sum = 0.0;  // in order, so that the offset does not depend on the number of threads
  for (std::int64_t i = 0; i < blocks; ++i) sum += values[i];
  const auto offset = static_cast<float>(sum / static_cast<double>(blocks));

  constexpr DynamicMap map = dynamic_map();
  parts.absmax = at::empty({blocks}, at::kByte);
  parts.nested_absmax = at::empty({(blocks + kNestedBlocksize - 1) / kNestedBlocksize}, at::kFloat);
  parts.nested_code = at::empty({256}, at::kFloat);
  std::copy_n(map.value, 256, parts.nested_code.mutable_data_ptr<float>());
  parts.nested_offset = offset;
  parts.nested_blocksize = kNestedBlocksize;

  const auto& kernel = detail::kernel_table();
  auto* codes = parts.absmax.mutable_data_ptr<std::uint8_t>();
  auto* nested_absmax = parts.nested_absmax.mutable_data_ptr<float>();
  at::parallel_for(0, parts.nested_absmax.numel(), 16, [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t first = begin * kNestedBlocksize;
    kernel.quantize_nested({
        .absmax = values + first,
        .n = std::min(end * kNestedBlocksize, blocks) - first,
        .blocksize = kNestedBlocksize,
        .map = &map,
        .offset = offset,
        .codes = codes + first,
        .nested_absmax = nested_absmax + begin,
    });
  });
}

// All elements, rounded to w.dtype(), then converted to `out_type`; `out` has room for them.
void dequantize_blocks(const QuantizedTensor& w, kernels::Float out_type, void* out) {
  constexpr std::int64_t kChunkBlocks = 256;  // absmax expanded at a time, on the stack
  const auto& kernel = detail::kernel_table();
  const std::int64_t numel = w.numel();
  const std::int64_t blocksize = w.blocksize();
  const at::Tensor codes_tensor = w.codes(), absmax_tensor = w.absmax();
  const std::int64_t blocks = absmax_tensor.numel();
  const auto* codes = codes_tensor.const_data_ptr<std::uint8_t>();
  const std::int64_t out_size = out_type == kernels::Float::f32 ? 4 : 2;
  at::parallel_for(0, blocks, detail::grain_for(blocksize, detail::kProductGrain),
                   [&](std::int64_t begin, std::int64_t end) {
                     float expanded[kChunkBlocks];
                     const std::int64_t step = w.is_nested() ? kChunkBlocks : end - begin;
                     for (std::int64_t b = begin; b < end; b += step) {
                       const std::int64_t count = std::min(step, end - b);
                       const float* absmax = expanded;
                       if (w.is_nested()) {
                         kernel.expand_nested({
                             .codes = absmax_tensor.const_data_ptr<std::uint8_t>() + b,
                             .nested_absmax = w.nested_absmax().const_data_ptr<float>(),
                             .first = b,
                             .n = count,
                             .blocksize = w.nested_blocksize(),
                             .map = w.nested_code().const_data_ptr<float>(),
                             .offset = w.nested_offset(),
                             .absmax = expanded,
                         });
                       } else {
                         absmax = absmax_tensor.const_data_ptr<float>() + b;
                       }
                       const std::int64_t offset = b * blocksize;
                       kernel.dequantize_4bit({
                           .codes = codes + offset / 2,
                           .absmax = absmax,
                           .n = std::min(offset + count * blocksize, numel) - offset,
                           .blocksize = blocksize,
                           .value = w.code().const_data_ptr<float>(),
                           .via = detail::float_type(w.dtype()),
                           .out_type = out_type,
                           .out = static_cast<char*>(out) + offset * out_size,
                       });
                     }
                   });
}

}  // namespace

QuantizedTensor quantize_4bit(const torch::Tensor& w, const QuantConfig& config) {
  constexpr const char* kOp = "quantize_4bit";
  LORAPP_CHECK(w.defined(), kOp, "the weight is an undefined tensor");
  LORAPP_CHECK(detail::is_quantizable(w.scalar_type()), kOp, "the weight is ", w.scalar_type(),
               ", expected float32, bfloat16 or float16");
  LORAPP_CHECK(w.layout() == at::kStrided, kOp, "the weight has the layout ", w.layout(),
               ", expected a dense tensor");
  LORAPP_CHECK(w.numel() > 0 && w.dim() > 0, kOp, "the weight has shape ", w.sizes(),
               ", expected at least one dimension and one element");
  LORAPP_CHECK(detail::is_valid_blocksize(config.blocksize), kOp, "blocksize is ", config.blocksize,
               ", expected a power of two from 32 to 4096");
  detail::check_device(w.device(), kOp);

  static constexpr Codebook4 kNf4 = nf4_codebook();
  static constexpr Codebook4 kFp4 = fp4_codebook();
  const Codebook4& book = config.quant_type == QuantType::nf4 ? kNf4 : kFp4;

  const at::Tensor flat = w.detach().contiguous();
  const std::int64_t n = flat.numel();
  QuantizedTensor::Parts parts;
  const at::Tensor code = at::empty({16}, at::kFloat);
  std::copy_n(book.value, 16, code.mutable_data_ptr<float>());
  parts.code = code.to(flat.device());
  parts.blocksize = config.blocksize;
  parts.quant_type = config.quant_type;
  parts.dtype = w.scalar_type();
  parts.shape = w.sizes().vec();
  const bool gpu = detail::on_gpu(flat.device());
  std::int64_t bad = -1;
  if (gpu) {
    auto found = detail::gpu_quantize(flat, book, config.blocksize);
    parts.codes = std::move(found.codes);
    parts.absmax = std::move(found.absmax);
    bad = found.first_not_finite;
  } else {
    parts.codes = at::empty({(n + 1) / 2}, at::kByte);
    parts.absmax = at::empty({(n + config.blocksize - 1) / config.blocksize}, at::kFloat);
    bad = quantize_blocks(flat, book, config.blocksize, parts.codes, parts.absmax);
  }
  LORAPP_CHECK(bad < 0, kOp, "the weight at ", position(bad, w.sizes()), " of ", w.sizes(), " is ",
               flat.view({-1})[bad].to(at::kFloat).item<float>(), ", expected finite weights");
  if (config.use_double_quant) gpu ? detail::gpu_nest_absmax(parts) : nest_absmax(parts);
  return QuantizedTensor::from_parts(std::move(parts), kOp);
}

torch::Tensor dequantize_4bit(const QuantizedTensor& w, std::optional<torch::Dtype> out) {
  constexpr const char* kOp = "dequantize_4bit";
  LORAPP_CHECK(w.defined(), kOp, "the quantized tensor is empty");
  const at::ScalarType dtype = out.value_or(w.dtype());
  LORAPP_CHECK(detail::is_compute_dtype(dtype), kOp, "the output dtype is ", dtype,
               ", expected float32, bfloat16, float16 or float64");
  detail::check_device(w.device(), kOp);
  const at::ScalarType direct = detail::is_quantizable(dtype) ? dtype : at::kFloat;
  const at::Tensor dense = at::empty(w.shape(), at::device(w.device()).dtype(direct));
  if (detail::on_gpu(w.device())) {
    detail::gpu_dequantize(w, dense);
  } else {
    dequantize_blocks(w, detail::float_type(direct), dense.mutable_data_ptr());
  }
  return dense.to(dtype);
}

}  // namespace lorapp
