// The autograd Function behind checkpoint().
#include <lorapp/nn/checkpointing.hpp>

#include <lorapp/error.hpp>

#include "quant/recompute.hpp"

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <utility>

namespace lorapp {

namespace {

using Block = std::function<torch::Tensor(const torch::Tensor&)>;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// What the backward pass needs besides tensors, in the form a context can hold.
struct Saved : torch::CustomClassHolder {
  explicit Saved(Block to_run) : block(std::move(to_run)) {}
  Block block;
};

// The parameters are inputs of the node, so that their gradients flow through it as through any
// operation: torch::autograd::grad works, several passes accumulate, x may need no gradient.
class CheckpointFn : public torch::autograd::Function<CheckpointFn> {
 public:
  static torch::Tensor forward(AutogradContext* context,
                               const torch::Tensor& x,
                               at::TensorList parameters,
                               const c10::intrusive_ptr<Saved>& what) {
    variable_list saved = {x};
    saved.insert(saved.end(), parameters.begin(), parameters.end());
    context->save_for_backward(std::move(saved));
    context->saved_data["saved"] = c10::IValue::make_capsule(what);
    return what->block(x);
  }

  static variable_list backward(AutogradContext* context, variable_list output_gradients) {
    LORAPP_CHECK(!torch::GradMode::is_enabled(), "checkpoint",
                 "second derivatives through a checkpointed block are not supported");
    const variable_list saved = context->get_saved_variables();
    const auto capsule = context->saved_data["saved"].toCapsule();
    const Block& block = static_cast<const Saved&>(*capsule).block;

    const torch::Tensor x = saved.front().detach().set_requires_grad(saved.front().requires_grad());
    variable_list wanted;
    std::vector<std::size_t> position;  // in `saved`
    for (std::size_t i = 0; i < saved.size(); ++i) {
      const torch::Tensor& tensor = i == 0 ? x : saved[i];
      if (!tensor.requires_grad()) continue;
      wanted.push_back(tensor);
      position.push_back(i);
    }
    variable_list gradients(saved.size() + 1);  // the block's stays undefined
    torch::Tensor output;
    {
      const torch::AutoGradMode with_graph(true);
      const detail::RecomputeScope recompute;
      output = block(x);
    }
    const variable_list found = torch::autograd::grad({output}, wanted, output_gradients,
                                                      /*retain_graph=*/std::nullopt,
                                                      /*create_graph=*/false,
                                                      /*allow_unused=*/true);
    for (std::size_t i = 0; i < found.size(); ++i) gradients[position[i]] = found[i];
    return gradients;
  }
};

}  // namespace

torch::Tensor checkpoint(Block block,
                         const torch::Tensor& x,
                         const std::vector<torch::Tensor>& parameters) {
  const at::TensorList list = parameters;
  return CheckpointFn::apply(x, list, c10::make_intrusive<Saved>(std::move(block)));
}

}  // namespace lorapp
