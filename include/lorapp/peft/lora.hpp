// LoraAdapter: y += scale · B (A dropout(x)), a low-rank update of one Linear.
// A [r, in], B [out, r], both float32 whatever the dtype of the layer.
#pragma once

#include <lorapp/error.hpp>
#include <lorapp/export.hpp>
#include <lorapp/nn/adapter.hpp>
#include <lorapp/peft/dropout.hpp>
#include <lorapp/peft/lora_config.hpp>

#include <ATen/CPUGeneratorImpl.h>
#include <torch/types.h>

#include <cmath>
#include <cstdint>

namespace lorapp {

/// One LoRA adapter (Hu et al. 2021, arXiv:2106.09685).
class LORAPP_API LoraAdapter : public LinearAdapter {
 public:
  struct Options {
    std::int64_t in_features = 0;
    std::int64_t out_features = 0;
    std::int64_t r = 0;
    double scale = 1;    ///< alpha/r, or alpha/√r
    double dropout = 0;  ///< probability, on the adapter's input, in training only
    LoraInit init = LoraInit::kaiming;
    std::uint64_t seed = 0;   ///< of the initial weights, shared by all adapters of a model
    std::uint64_t index = 0;  ///< of this adapter in the model; makes its random numbers its own
    torch::Device device = torch::kCPU;
  };

  explicit LoraAdapter(const Options& options) : options_(options) {
    LORAPP_CHECK(options.r >= 1, "lora", "r is ", options.r, "; expected 1 or more");
    const auto f32 = torch::TensorOptions().dtype(torch::kFloat32);
    torch::Tensor a = torch::empty({options.r, options.in_features}, f32);
    torch::Tensor b = torch::zeros({options.out_features, options.r}, f32);
    torch::Generator generator =
        at::detail::createCPUGenerator(derive_seed(options.seed, options.index));
    // Kaiming's bound gain·√(3/fan_in) with the gain √(2/(1 + a²)) of a = √5 is 1/√fan_in.
    const auto kaiming = [&generator](torch::Tensor& weight) {
      const double bound = 1 / std::sqrt(static_cast<double>(weight.size(1)));
      weight.uniform_(-bound, bound, generator);
    };
    switch (options.init) {
      case LoraInit::kaiming:
        kaiming(a);
        break;
      case LoraInit::gaussian:
        a.normal_(0, 1 / static_cast<double>(options.r), generator);
        break;
      case LoraInit::random:
        kaiming(a);
        kaiming(b);
        break;
    }
    a_ = register_parameter("A", a.to(options.device));
    b_ = register_parameter("B", b.to(options.device));
  }

  /// x […, in] → […, out] in the dtype of A and B, to which x is converted first.
  torch::Tensor delta(const torch::Tensor& x) override {
    torch::Tensor input = x.to(a_.scalar_type());
    if (is_training() && options_.dropout > 0) {
      input = seeded_dropout(input, options_.dropout, mask_seed_);
    }
    return at::linear(at::linear(input, a_), b_) * options_.scale;
  }

  /// scale · B A, [out, in].
  torch::Tensor delta_weight() override { return at::matmul(b_, a_) * options_.scale; }

  void seed_dropout(std::uint64_t step_seed) override {
    mask_seed_ = derive_seed(step_seed, options_.index);
  }

  const torch::Tensor& a() const noexcept { return a_; }
  const torch::Tensor& b() const noexcept { return b_; }
  std::int64_t r() const noexcept { return options_.r; }
  double scale() const noexcept { return options_.scale; }
  double dropout() const noexcept { return options_.dropout; }

 private:
  Options options_;
  torch::Tensor a_;  // [r, in]
  torch::Tensor b_;  // [out, r]
  std::uint64_t mask_seed_ = 0;
};

}  // namespace lorapp
