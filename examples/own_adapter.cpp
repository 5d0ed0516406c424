// An adapter of your own: derive from LinearAdapter and attach it; the layers need no change.
// Here VeRA (Kopiczko et al. 2023, arXiv:2310.11454): two frozen random matrices shared by all
// layers of one shape, and two trained vectors a layer. A small new model needs no files.
#include <lorapp/lorapp.hpp>

#include <torch/torch.h>

#include <cstdint>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

using namespace lorapp;

namespace {

/// x -> b ∘ B(d ∘ A x): A [r, in] and B [out, r] are frozen, d [r] and b [out] are trained.
class VeraAdapter : public LinearAdapter {
 public:
  VeraAdapter(torch::Tensor a, torch::Tensor b) : a_(std::move(a)), b_(std::move(b)) {
    scale_in_ = register_parameter("d", torch::full({a_.size(0)}, 0.1));
    scale_out_ = register_parameter("b", torch::zeros({b_.size(0)}));  // starts as no change
  }

  torch::Tensor delta(const torch::Tensor& x) override {
    return scale_out_ * torch::linear(scale_in_ * torch::linear(x, a_), b_);
  }

  torch::Tensor delta_weight() override {
    return scale_out_.unsqueeze(1) * b_.matmul(scale_in_.unsqueeze(1) * a_);
  }

 private:
  torch::Tensor a_, b_;
  torch::Tensor scale_in_, scale_out_;
};

/// Freezes the model, then gives each q_proj, v_proj and down_proj an adapter. Returns what is
/// trained.
std::vector<torch::Tensor> add_vera(CausalLM& model, std::int64_t rank) {
  for (torch::Tensor& parameter : model.parameters()) parameter.set_requires_grad(false);
  std::map<std::pair<std::int64_t, std::int64_t>, std::pair<torch::Tensor, torch::Tensor>> shared;
  std::vector<torch::Tensor> trained;
  for_each_linear(model, [&](const std::string& path, LinearImpl& linear) {
    const bool wanted =
        path.ends_with("q_proj") || path.ends_with("v_proj") || path.ends_with("down_proj");
    if (!wanted) return;
    auto& [a, b] = shared[{linear.in_features(), linear.out_features()}];
    if (!a.defined()) {
      a = torch::randn({rank, linear.in_features()}) / std::sqrt(linear.in_features());
      b = torch::randn({linear.out_features(), rank}) / std::sqrt(rank);
    }
    const auto adapter = std::make_shared<VeraAdapter>(a, b);
    linear.attach(adapter);
    for (const torch::Tensor& parameter : adapter->parameters()) trained.push_back(parameter);
  });
  return trained;
}

}  // namespace

int main() {
  try {
    torch::manual_seed(0);
    const auto model = CausalLM::from_config({.vocab_size = 64,
                                              .hidden_size = 64,
                                              .intermediate_size = 128,
                                              .num_hidden_layers = 2,
                                              .num_attention_heads = 4,
                                              .num_key_value_heads = 2,
                                              .max_position_embeddings = 64},
                                             /*seed=*/1);
    const std::vector<torch::Tensor> trained = add_vera(*model, /*rank=*/32);
    std::int64_t count = 0;
    for (const torch::Tensor& parameter : trained) count += parameter.numel();
    std::cout << count << " trained of " << num_parameters(*model) << " parameters\n";

    // One sequence to learn by heart, in LibTorch's own words: the library's Trainer would do too.
    const std::vector<std::int64_t> sequence = {3, 14, 15, 9, 26, 5, 35, 8, 9, 7, 9, 3, 23, 8, 46};
    const torch::Tensor labels = torch::tensor(sequence).slice(0, 1);
    torch::optim::AdamW optimizer(trained, torch::optim::AdamWOptions(0.05));
    for (int step = 0; step <= 100; ++step) {
      const torch::Tensor logits = model->forward(PackedInput::single(sequence)).slice(0, 0, -1);
      const torch::Tensor loss = torch::nn::functional::cross_entropy(logits, labels);
      if (step % 20 == 0) std::cout << "step " << step << " loss " << loss.item<double>() << '\n';
      optimizer.zero_grad();
      loss.backward();
      optimizer.step();
    }
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
  return 0;
}
