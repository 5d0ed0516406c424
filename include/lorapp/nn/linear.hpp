// Linear: y = x Wᵀ + b, with a dense, a 4-bit or an 8-bit weight and a slot for an adapter.
// W is [out, in]. A quantized weight moves between devices but no call ever recasts it.
#pragma once

#include <lorapp/error.hpp>
#include <lorapp/export.hpp>
#include <lorapp/nn/adapter.hpp>
#include <lorapp/nn/checkpointing.hpp>
#include <lorapp/quant/int8_weight.hpp>
#include <lorapp/quant/ops.hpp>
#include <lorapp/quant/quantized_tensor.hpp>

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>
#include <torch/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

namespace lorapp {

/// A linear layer of a language model. It holds no weight until set_dense(), set_quantized(),
/// set_int8() or tie() gives it one, so a model can be built before its weights are read.
class LORAPP_API LinearImpl : public torch::nn::Module {
 public:
  LinearImpl(std::int64_t in_features, std::int64_t out_features)
      : in_features_(in_features), out_features_(out_features) {}

  /// A dense layer; `weight` [out, in], `bias` [out] or undefined.
  explicit LinearImpl(const torch::Tensor& weight, const torch::Tensor& bias = {})
      : LinearImpl(weight.size(1), weight.size(0)) {
    set_dense(weight);
    if (bias.defined()) set_bias(bias);
  }

  /// x […, in] → […, out] in the dtype of x. The adapter's part is added to the base's.
  torch::Tensor forward(const Activation& input) {
    const torch::Tensor& x = input.value;
    if (adapter_ == nullptr || !adapter_enabled_) return base(x);
    if (const auto part = projection(input)) {
      return linear_4bit(x, part->w, part->bias, compute_dtype_, part->low_rank);
    }
    torch::Tensor y = base(x);
    torch::Tensor delta = adapter_->delta(x);
    // As PEFT: beside a 4-bit weight the delta is rounded before the sum, beside a dense one after.
    if (quantized_) delta = delta.to(y.scalar_type());
    return y.add_(delta);
  }

  /// residual + forward(input); on a GPU in one product where the layer is in 4 bits
  /// (stacked_linear_4bit).
  torch::Tensor forward_onto(const torch::Tensor& residual, const Activation& input) {
    std::optional<Projection> part = projection(input);
    if (!part) return residual + forward(input);
    part->added = residual;
    return stacked_linear_4bit(input.value, {*part}, compute_dtype_).front();
  }

  /// forward(input) of layers that read the same: on a GPU one product where all are in 4 bits with
  /// one compute dtype, and their adapters low-rank (stacked_linear_4bit).
  static std::vector<torch::Tensor> forward_each(const std::vector<LinearImpl*>& layers,
                                                 const Activation& input) {
    std::vector<Projection> stack;
    for (LinearImpl* layer : layers) {
      std::optional<Projection> projection = layer->projection(input);
      if (!projection || layer->compute_dtype_ != layers.front()->compute_dtype_) break;
      stack.push_back(*std::move(projection));
    }
    if (stack.size() == layers.size()) {
      return stacked_linear_4bit(input.value, stack, layers.front()->compute_dtype_);
    }
    std::vector<torch::Tensor> results;
    for (LinearImpl* layer : layers) results.push_back(layer->forward(input));
    return results;
  }

  /// The layer without its adapter.
  torch::Tensor base(const torch::Tensor& x) const {
    if (quantized_) return linear_4bit(x, *quantized_, optional_bias(), compute_dtype_);
    if (int8_) return linear_int8(x, *int8_, optional_bias());
    LORAPP_CHECK(weight_.defined(), "linear", "this layer has no weight yet");
    return linear_dense(x, weight_, optional_bias());
  }

  std::int64_t in_features() const noexcept { return in_features_; }
  std::int64_t out_features() const noexcept { return out_features_; }
  /// In 4 bits.
  bool is_quantized() const noexcept { return quantized_.has_value(); }
  /// In 8 bits.
  bool is_int8() const noexcept { return int8_.has_value(); }
  /// Neither, and there is a weight.
  bool is_dense() const noexcept { return weight_.defined(); }
  bool has_weight() const noexcept { return is_dense() || is_quantized() || is_int8(); }

  /// The 4-bit weight; Error if the layer has none.
  const QuantizedTensor& quantized() const {
    LORAPP_CHECK(quantized_, "linear", "the weight is ", is_int8() ? "8-bit" : "dense",
                 ", not 4-bit");
    return *quantized_;
  }

  /// The 8-bit weight; Error if the layer has none.
  const Int8Weight& int8() const {
    LORAPP_CHECK(int8_, "linear", "the weight is ", quantized_ ? "4-bit" : "dense", ", not 8-bit");
    return *int8_;
  }
  /// Whether the 8-bit weight is a copy of another module's, which counts the parameters.
  bool int8_is_copy() const noexcept { return int8_is_copy_; }

  /// The weight [out, in]: the parameter itself, or the dequantized values of a quantized weight.
  torch::Tensor dense_weight() const {
    if (quantized_) return dequantize_4bit(*quantized_);
    return int8_ ? dequantize_int8(*int8_) : weight_;
  }

  /// The bias [out]; undefined where there is none.
  const torch::Tensor& bias() const noexcept { return bias_; }

  /// Makes `weight` [out, in] the parameter "weight", in place of whatever was there.
  void set_dense(const torch::Tensor& weight, bool requires_grad = true) {
    check_shape(weight.sizes());
    drop_weight();
    weight_ = register_parameter("weight", weight.detach(), requires_grad);
  }

  /// Makes a 4-bit weight of shape [out, in] the weight; products are taken in `compute_dtype`
  /// (nothing: see resolve_compute_dtype). It is packed for them (QuantizedTensor::packed). It is
  /// not a parameter: nothing trains or recasts it.
  void set_quantized(const QuantizedTensor& weight,
                     std::optional<torch::Dtype> compute_dtype = {}) {
    check_shape(weight.shape());
    QuantizedTensor packed = weight.packed();  // `weight` may be this layer's own
    drop_weight();
    quantized_ = std::move(packed);
    compute_dtype_ = compute_dtype;
  }

  /// Makes an 8-bit weight of shape [out, in] the weight. Products take the dtype of their input.
  /// It is not a parameter: nothing trains or recasts it. `is_copy`: of a weight that another
  /// module has, e.g. a tied embedding.
  void set_int8(const Int8Weight& weight, bool is_copy = false) {
    check_shape(weight.sizes());
    Int8Weight own = weight;  // `weight` may be this layer's own
    drop_weight();
    int8_ = std::move(own);
    int8_is_copy_ = is_copy;
  }

  /// Uses a parameter of another module, e.g. the embedding, which stays its only owner.
  void tie(const torch::Tensor& weight) {
    check_shape(weight.sizes());
    drop_weight();
    weight_ = weight;
  }

  /// Makes `bias` [out] the parameter "bias".
  void set_bias(const torch::Tensor& bias, bool requires_grad = true) {
    LORAPP_CHECK(bias.dim() == 1 && bias.size(0) == out_features_, "linear", "bias has the shape ",
                 bias.sizes(), "; expected [", out_features_, "]");
    if (parameters_.contains("bias")) parameters_.erase("bias");
    bias_ = register_parameter("bias", bias.detach(), requires_grad);
  }

  /// Plugs an adapter in, as the submodule "lora"; Error if there is one.
  void attach(std::shared_ptr<LinearAdapter> adapter) {
    LORAPP_CHECK(adapter != nullptr, "linear", "cannot attach an adapter that is null");
    LORAPP_CHECK(adapter_ == nullptr, "linear", "there is an adapter already; detach it first");
    adapter_ = register_module("lora", std::move(adapter));
    adapter_enabled_ = true;
  }

  /// Takes the adapter out and returns it; null if there was none.
  std::shared_ptr<LinearAdapter> detach_adapter() {
    if (adapter_ != nullptr) unregister_module("lora");
    return std::exchange(adapter_, nullptr);
  }

  /// The adapter, or null.
  const std::shared_ptr<LinearAdapter>& adapter() const noexcept { return adapter_; }

  /// A disabled adapter stays in its slot but adds nothing.
  void set_adapter_enabled(bool enabled) noexcept { adapter_enabled_ = enabled; }
  bool adapter_enabled() const noexcept { return adapter_enabled_; }

  // Module::to(dtype) casts every parameter and buffer, whatever it means; a quantized weight is
  // neither.
  void to(torch::Device device, torch::Dtype dtype, bool non_blocking = false) override {
    torch::nn::Module::to(device, dtype, non_blocking);
    move_quantized(device);
  }
  void to(torch::Dtype dtype, bool non_blocking = false) override {
    torch::nn::Module::to(dtype, non_blocking);
  }
  void to(torch::Device device, bool non_blocking = false) override {
    torch::nn::Module::to(device, non_blocking);
    move_quantized(device);
  }

 private:
  // The whole layer as a 4-bit one with a low-rank term, if it is that.
  std::optional<Projection> projection(const Activation& input) const {
    if (!quantized_) return std::nullopt;
    Projection part{*quantized_, optional_bias()};
    if (adapter_ == nullptr || !adapter_enabled_) return part;
    part.low_rank = adapter_->low_rank();
    if (!part.low_rank) return std::nullopt;
    part.low_rank->recipe = input.recipe;
    return part;
  }

  void move_quantized(torch::Device device) {
    if (quantized_) quantized_ = quantized_->to(device).packed();
    if (int8_) int8_ = int8_->to(device);
  }

  std::optional<torch::Tensor> optional_bias() const {
    return bias_.defined() ? std::optional<torch::Tensor>(bias_) : std::nullopt;
  }

  void check_shape(torch::IntArrayRef shape) const {
    LORAPP_CHECK(shape.size() == 2 && shape[0] == out_features_ && shape[1] == in_features_,
                 "linear", "weight has the shape ", shape, "; expected [", out_features_, ", ",
                 in_features_, "]");
  }

  void drop_weight() {
    if (parameters_.contains("weight")) parameters_.erase("weight");
    weight_ = torch::Tensor();
    quantized_.reset();
    int8_.reset();
    int8_is_copy_ = false;
  }

  std::int64_t in_features_;
  std::int64_t out_features_;
  torch::Tensor weight_;  // [out, in], undefined while the weight is quantized
  torch::Tensor bias_;    // [out]
  std::optional<QuantizedTensor> quantized_;
  std::optional<torch::Dtype> compute_dtype_;
  std::shared_ptr<LinearAdapter> adapter_;
  bool adapter_enabled_ = true;
  std::optional<Int8Weight> int8_;
  bool int8_is_copy_ = false;
};
TORCH_MODULE(Linear);

}  // namespace lorapp
