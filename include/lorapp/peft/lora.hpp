// LoraAdapter: y += scale · (B (A dropout(x)) + b), a low-rank update of one Linear; b is optional.
// LoraEmbedding: row += scale · B a, a the token's column of A. All float32 whatever the layer's
// dtype.
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
#include <optional>

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
    bool bias = false;   ///< B has a bias b (PEFT's lora_bias), which starts as zero
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
    if (options.bias) {
      torch::Tensor bias = torch::zeros({options.out_features}, f32);
      if (options.init == LoraInit::random) {
        const double bound = 1 / std::sqrt(static_cast<double>(options.r));
        bias.uniform_(-bound, bound, generator);
      }
      bias_ = register_parameter("bias", bias.to(options.device));
    }
  }

  /// x […, in] → […, out] in the dtype of A and B, to which x is converted first.
  torch::Tensor delta(const torch::Tensor& x) override {
    torch::Tensor input = x.to(a_.scalar_type());
    if (drops()) input = seeded_dropout(input, options_.dropout, mask_seed_);
    const auto bias = bias_.defined() ? std::optional<torch::Tensor>(bias_) : std::nullopt;
    return at::linear(at::linear(input, a_), b_, bias) * options_.scale;
  }

  std::optional<LowRank> low_rank() override {
    if (bias_.defined() || a_.scalar_type() != torch::kFloat32) return std::nullopt;
    LowRank term{a_, b_, options_.scale};
    if (drops()) {
      term.mask = [p = options_.dropout, seed = mask_seed_](const torch::Tensor& x) {
        // Products in bfloat16 on a GPU round what is masked to that; so may the mask.
        return x.scalar_type() == torch::kBFloat16 && !x.is_cpu()
                   ? rounded_dropout(x, p, seed)
                   : seeded_dropout(x.to(torch::kFloat32), p, seed);
      };
    }
    return term;
  }

  /// scale · B A, [out, in].
  torch::Tensor delta_weight() override { return at::matmul(b_, a_) * options_.scale; }

  /// scale · b, [out].
  torch::Tensor delta_bias() override {
    return bias_.defined() ? bias_ * options_.scale : torch::Tensor();
  }

  void seed_dropout(std::uint64_t step_seed) override {
    mask_seed_ = derive_seed(step_seed, options_.index);
  }

  const torch::Tensor& a() const noexcept { return a_; }
  const torch::Tensor& b() const noexcept { return b_; }
  /// The bias of B; undefined where there is none.
  const torch::Tensor& bias() const noexcept { return bias_; }
  std::int64_t r() const noexcept { return options_.r; }
  double scale() const noexcept { return options_.scale; }
  double dropout() const noexcept { return options_.dropout; }

 private:
  bool drops() const { return is_training() && options_.dropout > 0; }

  Options options_;
  torch::Tensor a_;     // [r, in]
  torch::Tensor b_;     // [out, r]
  torch::Tensor bias_;  // [out], undefined without one
  std::uint64_t mask_seed_ = 0;
};

/// LoRA on a token embedding, as PEFT's: no dropout, A starts as zero and B normal(0, 1).
class LORAPP_API LoraEmbedding : public EmbeddingAdapter {
 public:
  /// `options` as of a Linear with in_features = rows of the table, out_features = their size.
  explicit LoraEmbedding(const LoraAdapter::Options& options)
      : r_(options.r), scale_(options.scale) {
    LORAPP_CHECK(options.r >= 1, "lora", "r is ", options.r, "; expected 1 or more");
    const auto f32 = torch::TensorOptions().dtype(torch::kFloat32);
    torch::Tensor a = torch::zeros({options.r, options.in_features}, f32);
    torch::Tensor b = torch::empty({options.out_features, options.r}, f32);
    torch::Generator generator =
        at::detail::createCPUGenerator(derive_seed(options.seed, options.index));
    b.normal_(0, 1, generator);
    if (options.init == LoraInit::random) a.normal_(0, 1, generator);
    a_ = register_parameter("A", a.to(options.device));
    b_ = register_parameter("B", b.to(options.device));
  }

  torch::Tensor adapt(const torch::Tensor& ids, const torch::Tensor& rows) override {
    const torch::Tensor delta = at::linear(at::embedding(a_.t(), ids), b_) * scale_;
    return (rows + delta).to(rows.scalar_type());
  }

  void merge_into(torch::Tensor& table) override { table.add_(delta_table()); }

  /// scale · (B A)ᵀ, [vocab, size].
  torch::Tensor delta_table() const { return at::matmul(b_, a_).t() * scale_; }

  const torch::Tensor& a() const noexcept { return a_; }
  const torch::Tensor& b() const noexcept { return b_; }
  std::int64_t r() const noexcept { return r_; }
  double scale() const noexcept { return scale_; }

 private:
  std::int64_t r_;
  double scale_;
  torch::Tensor a_;  // [r, vocab]
  torch::Tensor b_;  // [size, r]
};

}  // namespace lorapp
