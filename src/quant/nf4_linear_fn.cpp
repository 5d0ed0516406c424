// linear_4bit: the product with a 4-bit weight, and its gradient.
// The graph keeps a handle to the weight as it was given; nothing else of it outlives a call.
#include <lorapp/error.hpp>
#include <lorapp/quant/ops.hpp>

#include "quant/checks.hpp"
#include "quant/gpu.hpp"
#include "quant/gpu_ops.hpp"
#include "quant/packed_codes.hpp"
#include "quant/products.hpp"
#include "quant/second_derivatives.hpp"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace lorapp {
namespace {

constexpr const char* kOp = "linear_4bit";

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// What backward needs besides tensors, as one opaque value of the autograd context.
struct Saved : torch::CustomClassHolder {
  QuantizedTensor weight;
  at::ScalarType compute_dtype = at::kFloat;
  std::optional<at::ScalarType> bias_dtype;  // none: no bias
  std::optional<LowRank> low_rank;           // without its tensors
};

// The weight as the kernels read it, packed for this call if it is not; nothing where they do not
// apply: the weight cannot be packed, or the product is asked for in float64.
std::optional<QuantizedTensor> packed_for(const QuantizedTensor& weight,
                                          at::ScalarType compute_dtype) {
  if (compute_dtype == at::kDouble) return std::nullopt;
  QuantizedTensor packed = weight.packed();
  return packed.is_packed() ? std::optional(std::move(packed)) : std::nullopt;
}

using OptionalTensor = std::optional<at::Tensor>;

class Nf4LinearFn : public torch::autograd::Function<Nf4LinearFn> {
 public:
  static at::Tensor forward(AutogradContext* context,
                            const at::Tensor& x,
                            const OptionalTensor& bias,
                            const OptionalTensor& /*a*/,  // low_rank's, for the graph to see
                            const OptionalTensor& /*b*/,
                            const QuantizedTensor& weight,
                            at::ScalarType compute_dtype,
                            const LowRank* low_rank) {
    auto saved = c10::make_intrusive<Saved>();
    saved->weight = weight;
    saved->compute_dtype = compute_dtype;
    if (bias) saved->bias_dtype = bias->scalar_type();
    context->saved_data["saved"] = c10::IValue::make_capsule(saved);

    at::AutoDispatchBelowADInplaceOrView below;
    if (const auto packed = packed_for(weight, compute_dtype)) {
      auto [y, u] = detail::packed_forward(x, *packed, bias, compute_dtype, low_rank);
      if (low_rank != nullptr) save(context, *saved, x, *low_rank, u);
      return y;
    }
    const at::Tensor dense = dequantize_4bit(weight, compute_dtype);
    OptionalTensor wide;
    if (bias) wide = bias->to(compute_dtype);
    return at::linear(x.to(compute_dtype), dense, wide).to(x.scalar_type());
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const at::Tensor& dy = grads[0];
    LORAPP_CHECK(!dy.requires_grad(), kOp,
                 "second derivatives are not supported: the gradient of a 4-bit linear was itself "
                 "asked to be differentiable (create_graph)");
    const auto holder = context->saved_data["saved"].toCapsule();
    const auto& saved = static_cast<const Saved&>(*holder);
    // Without the term dx depends on dy alone; with it, on what trains as well.
    if (saved.low_rank) detail::refuse_second_derivatives(kOp);
    at::NoGradGuard no_grad;
    // The context counts only the tensors that were given.
    std::size_t next = 1;
    const auto wanted_if = [&](bool given) { return given && context->needs_input_grad(next++); };
    const bool needs_x = context->needs_input_grad(0);
    const bool needs_bias = wanted_if(saved.bias_dtype.has_value());
    const bool needs_a = wanted_if(saved.low_rank.has_value());
    const bool needs_b = wanted_if(saved.low_rank.has_value());

    detail::Gradients found;
    at::Tensor dbias;
    if (const auto packed = packed_for(saved.weight, saved.compute_dtype)) {
      std::optional<detail::SavedLowRank> low_rank;
      if (saved.low_rank) low_rank = restored(*saved.low_rank, context->get_saved_variables());
      found = detail::packed_backward(dy, *packed, saved.compute_dtype,
                                      low_rank ? &*low_rank : nullptr, {needs_x, needs_a, needs_b});
    } else if (needs_x) {
      const at::Tensor dense = dequantize_4bit(saved.weight, saved.compute_dtype);
      found.x = at::matmul(dy.to(saved.compute_dtype), dense).to(dy.scalar_type());
    }
    if (needs_bias) dbias = detail::bias_gradient(dy, *saved.bias_dtype);
    return {found.x, dbias, found.a, found.b, {}, {}, {}};
  }

 private:
  // A, B, u, and either x or what it is made of.
  static void save(AutogradContext* context,
                   Saved& saved,
                   const at::Tensor& x,
                   const LowRank& term,
                   const at::Tensor& u) {
    variable_list kept = {term.a, term.b, u};
    std::optional<Recipe> recipe;
    if (!term.a.requires_grad()) {
      // Nothing reads x.
    } else if (!term.recipe) {
      kept.push_back(x);
    } else {
      kept.insert(kept.end(), term.recipe->inputs.begin(), term.recipe->inputs.end());
      recipe.emplace(Recipe{{}, term.recipe->make});
    }
    context->save_for_backward(std::move(kept));
    saved.low_rank.emplace(LowRank{{}, {}, term.scale, term.mask, std::move(recipe)});
  }

  static detail::SavedLowRank restored(const LowRank& saved, const variable_list& kept) {
    const auto x = [recipe = saved.recipe, inputs = variable_list(kept.begin() + 3, kept.end())] {
      return recipe ? recipe->make(inputs) : inputs.front();
    };
    return {{kept[0], kept[1], saved.scale, saved.mask}, x, kept[2]};
  }
};

// A low-rank term, checked against x and the weight.
void check_low_rank(const LowRank& term, const at::Tensor& x, const QuantizedTensor& w) {
  const auto check = [&](const char* name, const at::Tensor& tensor, std::int64_t rows,
                         std::int64_t columns) {
    LORAPP_CHECK(tensor.defined() && tensor.dim() == 2 && tensor.size(0) == rows &&
                     tensor.size(1) == columns && tensor.scalar_type() == at::kFloat,
                 kOp, name, " of the low-rank term is ",
                 tensor.defined() ? detail::concat(tensor.scalar_type(), " ", tensor.sizes())
                                  : std::string("undefined"),
                 ", expected Float [", rows, ", ", columns, "]");
    LORAPP_CHECK(tensor.device() == x.device(), kOp, name, " of the low-rank term is on ",
                 tensor.device(), ", x on ", x.device());
  };
  const std::int64_t r = term.a.defined() && term.a.dim() == 2 ? term.a.size(0) : 1;
  LORAPP_CHECK(r > 0, kOp, "the low-rank term has the rank 0");
  check("A", term.a, r, w.size(1));
  check("B", term.b, w.size(0), r);
}

// A layer, checked against x.
void check_operands(const at::Tensor& x,
                    const QuantizedTensor& w,
                    const std::optional<at::Tensor>& bias,
                    const std::optional<LowRank>& low_rank) {
  LORAPP_CHECK(x.defined(), kOp, "x is an undefined tensor");
  LORAPP_CHECK(w.defined(), kOp, "the weight is empty");
  LORAPP_CHECK(w.dim() == 2, kOp, "the weight has shape ", at::IntArrayRef(w.shape()),
               ", expected [out_features, in_features]");
  LORAPP_CHECK(detail::is_compute_dtype(x.scalar_type()), kOp, "x is ", x.scalar_type(),
               ", expected float32, bfloat16, float16 or float64");
  LORAPP_CHECK(x.dim() >= 1 && x.size(-1) == w.size(1), kOp, "x has shape ", x.sizes(),
               ", expected [..., ", w.size(1), "] for a weight of shape ",
               at::IntArrayRef(w.shape()));
  LORAPP_CHECK(x.device() == w.device(), kOp, "x is on ", x.device(), ", the weight on ",
               w.device());
  if (bias && bias->defined()) {
    LORAPP_CHECK(bias->dim() == 1 && bias->size(0) == w.size(0), kOp, "bias has shape ",
                 bias->sizes(), ", expected [", w.size(0), "]");
    LORAPP_CHECK(detail::is_compute_dtype(bias->scalar_type()), kOp, "bias is ",
                 bias->scalar_type(), ", expected float32, bfloat16, float16 or float64");
    LORAPP_CHECK(bias->device() == x.device(), kOp, "bias is on ", bias->device(), ", x on ",
                 x.device());
  }
  if (low_rank) check_low_rank(*low_rank, x, w);
  detail::check_device(x.device(), kOp);
}

detail::GpuLayer gpu_layer(const QuantizedTensor& w,
                           const OptionalTensor& bias,
                           const std::optional<LowRank>& low_rank) {
  return {w, bias && bias->defined() ? &*bias : nullptr, low_rank ? &*low_rank : nullptr};
}

// Whether `added` can be part of a product's result: of its shape, type and device.
bool is_like_result(const OptionalTensor& added, const at::Tensor& x, const QuantizedTensor& w) {
  return added && added->scalar_type() == x.scalar_type() && added->device() == x.device() &&
         added->sizes() == at::IntArrayRef(detail::resized(x, w.size(0)));
}

// The low-rank term by itself.
at::Tensor low_rank_term(const LowRank& term, const at::Tensor& x) {
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor input = term.mask ? term.mask(wide).to(at::kFloat) : wide;
  return at::linear(at::linear(input, term.a), term.b) * term.scale;
}

}  // namespace

torch::Tensor linear_4bit(const torch::Tensor& x,
                          const QuantizedTensor& w,
                          const std::optional<torch::Tensor>& bias,
                          std::optional<torch::Dtype> compute_dtype,
                          const std::optional<LowRank>& low_rank) {
  check_operands(x, w, bias, low_rank);
  const at::ScalarType dtype = resolve_compute_dtype(compute_dtype, x.device());
  const OptionalTensor b = bias && bias->defined() ? bias : std::nullopt;
  if (detail::gpu_multiplies(w, dtype)) {
    return detail::gpu_linear(x, {gpu_layer(w, b, low_rank)}).front();
  }
  const auto plain = [&] {
    const LowRank* none = nullptr;
    return Nf4LinearFn::apply(x, b, OptionalTensor(), OptionalTensor(), w, dtype, none);
  };
  if (!low_rank) return plain();
  const bool packs = w.is_packed() || detail::PackedCodes::fits(w.tables());
  if (!packs || dtype == at::kDouble) {
    const at::Tensor y = plain();
    return y + low_rank_term(*low_rank, x).to(y.scalar_type());
  }
  return Nf4LinearFn::apply(x, b, OptionalTensor(low_rank->a), OptionalTensor(low_rank->b), w,
                            dtype, &*low_rank);
}

std::vector<torch::Tensor> stacked_linear_4bit(const torch::Tensor& x,
                                               const std::vector<Projection>& layers,
                                               std::optional<torch::Dtype> compute_dtype) {
  LORAPP_CHECK(!layers.empty(), kOp, "a stack has no layers, expected at least one");
  const bool gpu = std::all_of(layers.begin(), layers.end(), [&](const Projection& each) {
    return each.w.defined() &&
           detail::gpu_multiplies(each.w, resolve_compute_dtype(compute_dtype, each.w.device()));
  });
  std::vector<torch::Tensor> results;
  if (gpu) {
    std::vector<detail::GpuLayer> stack;
    for (const Projection& each : layers) {
      check_operands(x, each.w, each.bias, each.low_rank);
      stack.push_back(gpu_layer(each.w, each.bias, each.low_rank));
    }
    if (layers.size() == 1 && is_like_result(layers.front().added, x, layers.front().w)) {
      stack.front().added = &*layers.front().added;
      return detail::gpu_linear(x, stack);
    }
    results = detail::gpu_linear(x, stack);
  } else {
    for (const Projection& each : layers) {
      results.push_back(linear_4bit(x, each.w, each.bias, compute_dtype, each.low_rank));
    }
  }
  for (std::size_t i = 0; i < layers.size(); ++i) {
    if (layers[i].added) results[i] = *layers[i].added + results[i];
  }
  return results;
}

}  // namespace lorapp
