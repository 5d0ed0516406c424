// row_loss: cross entropy of rows of logits by one kernel, the gradient in their place.
#include "kernels/cuda_products.hpp"
#include "kernels/rows_args.hpp"
#include "nn/row_kernels.hpp"

#include <lorapp/error.hpp>
#include <lorapp/train/loss.hpp>

#include <ATen/ops/empty.h>

#include <cmath>
#include <vector>

namespace lorapp {

namespace {
constexpr const char* kOp = "token_loss";
}

std::int64_t head_chunk_rows(std::int64_t vocab_size, const torch::Device& device) {
  return detail::on_gpu(device) && vocab_size > 0 ? kernels::cuda::head_chunk(vocab_size)
                                                  : head_chunk_rows(vocab_size);
}

std::optional<double> detail::row_loss(const torch::Tensor& logits,
                                       const torch::Tensor& labels,
                                       std::optional<double> grad_scale) {
  if (!has_row_kernel(logits) || logits.dim() != 2 || !logits.is_contiguous()) return std::nullopt;
  const std::int64_t rows = logits.size(0), size = logits.size(1);
  const torch::Tensor targets = labels.contiguous(), known = targets.to(torch::kCPU);
  LORAPP_CHECK(targets.device() == logits.device(), kOp, "labels are on ", targets.device(),
               ", logits on ", logits.device());
  const auto* known_label = known.const_data_ptr<std::int64_t>();
  for (std::int64_t row = 0; row < rows; ++row) {
    LORAPP_CHECK(known_label[row] >= 0 && known_label[row] < size, kOp, "label ", known_label[row],
                 " is not in the vocabulary of ", size, " tokens");
  }
  // Whoever needs the logits after this hears of it from autograd.
  if (grad_scale) logits.unsafeGetTensorImpl()->bump_version();
  const auto* label = targets.const_data_ptr<std::int64_t>();
  const torch::Tensor parts = at::empty({3, rows}, logits.options().dtype(torch::kFloat32));
  auto* part = parts.mutable_data_ptr<float>();
  for_row_ranges(kOp, logits.device(), rows, size,
                 [&](const auto& kernel, std::int64_t first, std::int64_t last) {
                   std::vector<float> scratch;
                   if (grad_scale && logits.is_cpu() && logits.scalar_type() != torch::kFloat32) {
                     scratch.resize(static_cast<std::size_t>(size + kernels::kRowStep));
                   }
                   kernel.cross_entropy({
                       .logits = mutable_elements(logits, first * size),
                       .type = float_type(logits.scalar_type()),
                       .rows = last - first,
                       .size = size,
                       .labels = label + first,
                       .gradient = grad_scale.has_value(),
                       .grad_scale = static_cast<float>(grad_scale.value_or(0)),
                       .largest = part + first,
                       .sum = part + rows + first,
                       .picked = part + 2 * rows + first,
                       .scratch = scratch.data(),
                   });
                 });
  const torch::Tensor found = parts.to(torch::kCPU);
  const auto* largest = found.const_data_ptr<float>();
  const float *sum = largest + rows, *picked = sum + rows;
  double loss = 0;
  for (std::int64_t row = 0; row < rows; ++row) {
    loss += std::log(static_cast<double>(sum[row])) +
            (static_cast<double>(largest[row]) - static_cast<double>(picked[row]));
  }
  return loss;
}

}  // namespace lorapp
