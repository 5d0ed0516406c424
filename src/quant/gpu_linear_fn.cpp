// 4-bit layers on a GPU with the same input, as one node of the graph.
// It keeps handles to the weights as they were given, and what the low-rank terms' gradients read.
#include "quant/gpu_ops.hpp"
#include "quant/recompute.hpp"
#include "quant/second_derivatives.hpp"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

namespace lorapp::detail {
namespace {

constexpr const char* kOp = "linear_4bit";

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// One layer; the tensors of its bias and low-rank term are inputs of the node.
struct SavedLayer {
  QuantizedTensor w;
  std::optional<at::ScalarType> bias_dtype;  // none: no bias
  bool adds = false;                         // whether a tensor was added to y
  std::optional<LowRank> low_rank;           // without its tensors
};

struct Saved : torch::CustomClassHolder {
  std::vector<SavedLayer> layers;
  std::optional<Recipe> recipe;  // without its inputs
  at::Tensor matrix;             // RecomputeScope's
};

bool has_low_rank(const GpuLayer& layer) { return layer.low_rank != nullptr; }

// The first recipe of x that a term has: all of them make the same x.
const std::optional<Recipe>* recipe_of(const std::vector<GpuLayer>& layers) {
  for (const GpuLayer& layer : layers) {
    if (has_low_rank(layer) && layer.low_rank->recipe) return &layer.low_rank->recipe;
  }
  return nullptr;
}

class GpuLinearFn : public torch::autograd::Function<GpuLinearFn> {
 public:
  // `operands`: of each layer its bias, what it adds, A and B, as far as it has them, for the graph
  // to see.
  static variable_list forward(AutogradContext* context,
                               const at::Tensor& x,
                               at::TensorList /*operands*/,
                               const std::vector<GpuLayer>& layers) {
    auto saved = c10::make_intrusive<Saved>();
    at::AutoDispatchBelowADInplaceOrView below;
    at::Tensor* matrix = RecomputeScope::is_active() ? &saved->matrix : nullptr;
    GpuForward found = gpu_forward(x, layers, matrix);
    save(context, *saved, x, layers, found.u);
    context->saved_data["saved"] = c10::IValue::make_capsule(saved);
    return std::move(found.y);
  }

  static variable_list backward(AutogradContext* context, variable_list dy) {
    refuse_second_derivatives(kOp);
    at::NoGradGuard no_grad;
    const auto holder = context->saved_data["saved"].toCapsule();
    auto& saved = static_cast<Saved&>(*holder);
    const variable_list kept = context->get_saved_variables();

    // What was saved: A and B of each low-rank term, u, and x or what it is made of.
    std::size_t next = 0;
    std::vector<LowRank> terms;
    terms.reserve(saved.layers.size());
    std::vector<GpuLayer> layers;
    for (const SavedLayer& each : saved.layers) {
      layers.push_back({each.w});
      if (!each.low_rank) continue;
      terms.push_back({kept[next], kept[next + 1], each.low_rank->scale, each.low_rank->mask});
      next += 2;
      layers.back().low_rank = &terms.back();
    }
    const at::Tensor u = next < kept.size() ? kept[next++] : at::Tensor();
    const variable_list made_of(
        kept.begin() + static_cast<std::ptrdiff_t>(std::min(next, kept.size())), kept.end());
    const std::function<at::Tensor()> x = [&] {
      return saved.recipe ? saved.recipe->make(made_of) : made_of.front();
    };

    // Inputs are counted as they were given: x, then each layer's.
    std::size_t input = 0;
    GpuWanted wanted{context->needs_input_grad(input++), {}, {}};
    std::vector<bool> wants_bias;
    for (const SavedLayer& each : saved.layers) {
      wants_bias.push_back(each.bias_dtype && context->needs_input_grad(input++));
      if (each.adds) ++input;
      wanted.a.push_back(each.low_rank && context->needs_input_grad(input++));
      wanted.b.push_back(each.low_rank && context->needs_input_grad(input++));
    }
    GpuGradients found = gpu_backward({dy, layers, x, u, std::exchange(saved.matrix, {})}, wanted);

    variable_list gradients = {found.x};
    for (std::size_t i = 0; i < saved.layers.size(); ++i) {
      const SavedLayer& each = saved.layers[i];
      if (each.bias_dtype) {
        gradients.push_back(wants_bias[i] && dy[i].defined()
                                ? bias_gradient(dy[i], *each.bias_dtype)
                                : at::Tensor());
      }
      if (each.adds) gradients.push_back(dy[i]);
      if (each.low_rank) gradients.insert(gradients.end(), {found.a[i], found.b[i]});
    }
    gradients.emplace_back();  // the layers themselves
    return gradients;
  }

 private:
  static void save(AutogradContext* context,
                   Saved& saved,
                   const at::Tensor& x,
                   const std::vector<GpuLayer>& layers,
                   const at::Tensor& u) {
    variable_list kept;
    bool trains_a = false;
    for (const GpuLayer& layer : layers) {
      SavedLayer each{layer.w, std::nullopt, layer.added != nullptr, std::nullopt};
      if (layer.bias != nullptr) each.bias_dtype = layer.bias->scalar_type();
      if (has_low_rank(layer)) {
        const LowRank& term = *layer.low_rank;
        kept.insert(kept.end(), {term.a, term.b});
        trains_a = trains_a || term.a.requires_grad();
        each.low_rank.emplace(LowRank{{}, {}, term.scale, term.mask, {}});
      }
      saved.layers.push_back(std::move(each));
    }
    if (std::any_of(layers.begin(), layers.end(), has_low_rank)) kept.push_back(u);
    if (trains_a) {
      if (const auto* recipe = recipe_of(layers)) {
        kept.insert(kept.end(), (*recipe)->inputs.begin(), (*recipe)->inputs.end());
        saved.recipe.emplace(Recipe{{}, (*recipe)->make});
      } else {
        kept.push_back(x);
      }
    }
    context->save_for_backward(std::move(kept));
  }
};

}  // namespace

std::vector<at::Tensor> gpu_linear(const at::Tensor& x, const std::vector<GpuLayer>& layers) {
  std::vector<at::Tensor> operands;
  for (const GpuLayer& layer : layers) {
    if (layer.bias != nullptr) operands.push_back(*layer.bias);
    if (layer.added != nullptr) operands.push_back(*layer.added);
    if (has_low_rank(layer)) {
      operands.insert(operands.end(), {layer.low_rank->a, layer.low_rank->b});
    }
  }
  return GpuLinearFn::apply(x, at::TensorList(operands), layers);
}

}  // namespace lorapp::detail
