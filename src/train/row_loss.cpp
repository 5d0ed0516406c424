// row_loss: cross entropy of rows of logits by one kernel, the gradient in their place.
#include "kernels/rows_args.hpp"
#include "nn/row_kernels.hpp"

#include <lorapp/error.hpp>
#include <lorapp/train/loss.hpp>

#include <cmath>
#include <vector>

namespace lorapp {

std::optional<double> detail::row_loss(const torch::Tensor& logits,
                                       const torch::Tensor& labels,
                                       std::optional<double> grad_scale) {
  if (!has_row_kernel(logits) || logits.dim() != 2 || !logits.is_contiguous()) return std::nullopt;
  const std::int64_t rows = logits.size(0), size = logits.size(1);
  const torch::Tensor targets = labels.contiguous();
  const auto* label = targets.const_data_ptr<std::int64_t>();
  for (std::int64_t row = 0; row < rows; ++row) {
    LORAPP_CHECK(label[row] >= 0 && label[row] < size, "token_loss", "label ", label[row],
                 " is not in the vocabulary of ", size, " tokens");
  }
  // Whoever needs the logits after this hears of it from autograd.
  if (grad_scale) logits.unsafeGetTensorImpl()->bump_version();
  const auto count = static_cast<std::size_t>(rows);
  std::vector<float> largest(count), sum(count), picked(count);
  const auto& kernel = kernel_table();
  for_row_ranges(rows, size, [&](std::int64_t first, std::int64_t last) {
    std::vector<float> scratch;
    if (grad_scale && logits.scalar_type() != torch::kFloat32) {
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
        .largest = largest.data() + first,
        .sum = sum.data() + first,
        .picked = picked.data() + first,
        .scratch = scratch.data(),
    });
  });
  double loss = 0;
  for (std::size_t row = 0; row < count; ++row) {
    loss += std::log(static_cast<double>(sum[row])) +
            (static_cast<double>(largest[row]) - static_cast<double>(picked[row]));
  }
  return loss;
}

}  // namespace lorapp
