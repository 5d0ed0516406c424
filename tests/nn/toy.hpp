// What the tests of this room share: a small model, distances, numerical gradients.
#pragma once

#include "support/error_of.hpp"

#include <lorapp/error.hpp>
#include <lorapp/nn/causal_lm.hpp>
#include <lorapp/nn/decoder.hpp>

#include <doctest/doctest.h>
#include <torch/autograd.h>
#include <torch/types.h>

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace lorapp::test {

// Odd in every size that may be odd; 3 query heads to a key head.
inline ModelConfig toy_config() {
  ModelConfig config;
  config.vocab_size = 61;
  config.hidden_size = 36;
  config.intermediate_size = 53;
  config.num_hidden_layers = 3;
  config.num_attention_heads = 6;
  config.num_key_value_heads = 2;
  config.head_dim = 10;  // not 36 / 6
  config.max_position_embeddings = 128;
  config.initializer_range = 0.3;  // so that attention is far from uniform
  return config;
}

inline std::shared_ptr<DecoderLM> toy_model(const ModelConfig& config = toy_config(),
                                            std::uint64_t seed = 1) {
  return std::static_pointer_cast<DecoderLM>(CausalLM::from_config(config, seed));
}

inline torch::Tensor random_tensor(torch::IntArrayRef shape,
                                   std::uint64_t seed,
                                   torch::Dtype dtype = torch::kFloat32) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  return at::randn(shape, generator, torch::dtype(torch::kFloat64)).to(dtype);
}

inline std::vector<std::int64_t> random_ids(std::int64_t count,
                                            std::int64_t vocab,
                                            std::uint64_t seed) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  const torch::Tensor ids = at::randint(vocab, {count}, generator, torch::dtype(torch::kInt64));
  return {ids.data_ptr<std::int64_t>(), ids.data_ptr<std::int64_t>() + count};
}

// ‖got − want‖ / ‖want‖
inline double distance(const torch::Tensor& got, const torch::Tensor& want) {
  REQUIRE(got.sizes() == want.sizes());
  const torch::Tensor reference = want.detach().to(torch::kFloat64);
  const double norm = reference.norm().item<double>();
  const double error = (got.detach().to(torch::kFloat64) - reference).norm().item<double>();
  return norm > 0 ? error / norm : error;
}

// The largest difference between the gradients of Σ f(x)·w, w random, and central differences, over
// the float64 tensors x.
inline double gradient_error(
    const std::function<torch::Tensor(const std::vector<torch::Tensor>&)>& f,
    std::vector<torch::Tensor> inputs) {
  for (torch::Tensor& input : inputs) input.set_requires_grad(true);
  const torch::Tensor weights = random_tensor(f(inputs).sizes(), 99, torch::kFloat64);
  const auto gradients = torch::autograd::grad({(f(inputs) * weights).sum()}, inputs);
  const torch::NoGradGuard no_grad;
  const double step = 1e-6;
  double worst = 0;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    torch::Tensor flat = inputs[i].view({-1});
    const torch::Tensor gradient = gradients[i].reshape({-1});
    for (std::int64_t j = 0; j < flat.numel(); ++j) {
      const double value = flat[j].item<double>();
      flat[j] = value + step;
      const double above = (f(inputs) * weights).sum().item<double>();
      flat[j] = value - step;
      const double below = (f(inputs) * weights).sum().item<double>();
      flat[j] = value;
      const double numeric = (above - below) / (2 * step);
      worst = std::max(worst, std::abs(numeric - gradient[j].item<double>()));
    }
  }
  return worst;
}

}  // namespace lorapp::test
