// packed_attention and its gradients.
#include <lorapp/error.hpp>
#include <lorapp/nn/attention.hpp>
#include <lorapp/nn/packed_attention.hpp>

#include "nn/attention_units.hpp"
#include "quant/second_derivatives.hpp"

#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

namespace lorapp {
namespace {

constexpr const char* kOp = "packed_attention";

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class PackedAttentionFn : public torch::autograd::Function<PackedAttentionFn> {
 public:
  static torch::Tensor forward(AutogradContext* context,
                               const torch::Tensor& q,
                               const torch::Tensor& k,
                               const torch::Tensor& v,
                               const std::vector<std::int64_t>& cu_seqlens,
                               std::int64_t window) {
    at::AutoDispatchBelowADInplaceOrView below;
    const auto result = detail::packed_attention_forward(q, k, v, cu_seqlens, window);
    const torch::Tensor out = result.out.view({q.size(0), q.size(1) * q.size(2)});
    context->save_for_backward({q, k, v, out, result.log_sum});
    context->saved_data["cu_seqlens"] = cu_seqlens;
    context->saved_data["window"] = window;
    return out;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    detail::refuse_second_derivatives(kOp);
    const variable_list saved = context->get_saved_variables();
    const torch::Tensor &q = saved[0], &k = saved[1], &v = saved[2];
    at::NoGradGuard no_grad;
    const auto gradients = detail::packed_attention_backward(
        q, k, v, {saved[3].view(q.sizes()), saved[4]}, grads[0].reshape(q.sizes()),
        context->saved_data["cu_seqlens"].toIntVector(), context->saved_data["window"].toInt());
    return {gradients.q, gradients.k, gradients.v, torch::Tensor(), torch::Tensor()};
  }
};

torch::Tensor attend_each(const torch::Tensor& q,
                          const torch::Tensor& k,
                          const torch::Tensor& v,
                          const std::vector<std::int64_t>& cu_seqlens,
                          std::int64_t window) {
  std::vector<torch::Tensor> sequences;
  for (std::size_t i = 0; i + 1 < cu_seqlens.size(); ++i) {
    const std::int64_t begin = cu_seqlens[i], end = cu_seqlens[i + 1];
    if (begin == end) continue;
    sequences.push_back(attend(q.slice(0, begin, end), k.slice(0, begin, end).transpose(0, 1),
                               v.slice(0, begin, end).transpose(0, 1), window));
  }
  if (sequences.empty()) return q.reshape({0, q.size(1) * q.size(2)});
  return sequences.size() == 1 ? sequences.front() : at::cat(sequences, 0);
}

}  // namespace

torch::Tensor packed_attention(const torch::Tensor& q,
                               const torch::Tensor& k,
                               const torch::Tensor& v,
                               const std::vector<std::int64_t>& cu_seqlens,
                               std::int64_t window) {
  LORAPP_CHECK(q.dim() == 3 && k.dim() == 3 && k.sizes() == v.sizes() && q.size(0) == k.size(0) &&
                   q.size(2) == k.size(2) && k.size(1) > 0 && q.size(1) % k.size(1) == 0,
               kOp, "q, k and v have shapes ", q.sizes(), ", ", k.sizes(), " and ", v.sizes(),
               ", expected [T, heads, d] and twice [T, kv_heads, d], with kv_heads a divisor of "
               "heads");
  LORAPP_CHECK(!cu_seqlens.empty() && cu_seqlens.front() == 0 && cu_seqlens.back() == q.size(0) &&
                   std::is_sorted(cu_seqlens.begin(), cu_seqlens.end()),
               kOp, "cu_seqlens is ", at::IntArrayRef(cu_seqlens), ", expected to rise from 0 to ",
               q.size(0));
  if (!detail::attention_kernels_apply(q, k.size(1), k, v)) {
    return attend_each(q, k, v, cu_seqlens, window);
  }
  return PackedAttentionFn::apply(q, k, v, cu_seqlens, window);
}

torch::Tensor cached_attention(const torch::Tensor& q,
                               const torch::Tensor& k,
                               const torch::Tensor& v,
                               std::int64_t window) {
  if (q.size(0) == 0 || !detail::attention_kernels_apply(q, k.size(0), k, v)) {
    return attend(q, k, v, window);
  }
  const at::NoGradGuard no_grad;
  return detail::cached_attention_forward(q, k, v, window).view({q.size(0), -1});
}

}  // namespace lorapp
