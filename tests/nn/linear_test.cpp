#include "nn/toy.hpp"

#include <lorapp/nn/linear.hpp>
#include <lorapp/nn/traverse.hpp>

#include <memory>
#include <vector>

using namespace lorapp;
using namespace lorapp::test;

namespace {

// Adds x Uᵀ, in `dtype`.
struct Shift : LinearAdapter {
  Shift(std::int64_t in, std::int64_t out, torch::Dtype dtype = torch::kFloat32)
      : update(register_parameter("update", random_tensor({out, in}, 21, dtype))) {}
  torch::Tensor delta(const torch::Tensor& x) override {
    return at::linear(x.to(update.scalar_type()), update);
  }
  torch::Tensor delta_weight() override { return update; }
  void seed_dropout(std::uint64_t seed) override { seeds.push_back(seed); }
  torch::Tensor update;
  std::vector<std::uint64_t> seeds;
};

}  // namespace

TEST_SUITE("nn") {
  TEST_CASE("linear: a dense layer is x Wᵀ + b for inputs of any rank") {
    const torch::Tensor weight = random_tensor({5, 3}, 1);
    const torch::Tensor bias = random_tensor({5}, 2);
    Linear linear(weight, bias);
    const torch::Tensor x = random_tensor({2, 4, 3}, 3);
    CHECK(distance(linear(x), at::matmul(x, weight.t()) + bias) < 1e-6);
    CHECK(linear->in_features() == 3);
    CHECK(linear->out_features() == 5);
    CHECK(linear->parameters().size() == 2);
  }

  TEST_CASE("linear: without a weight it says so, and refuses one of another shape") {
    Linear linear(3, 5);
    CHECK_FALSE(linear->has_weight());
    CHECK(contains(error_of([&] { linear(torch::zeros({1, 3})); }), "no weight"));
    CHECK(contains(error_of([&] {
                     linear->set_dense(torch::zeros({3, 5}));
                   }),
                   "[3, 5]; expected [5, 3]"));
    CHECK(contains(error_of([&] { linear->set_bias(torch::zeros({3})); }), "expected [5]"));
    CHECK(contains(error_of([&] {
                     linear->set_quantized(quantize_4bit(torch::ones({3, 5})));
                   }),
                   "expected [5, 3]"));
    CHECK(contains(error_of([&] { (void)linear->quantized(); }), "dense"));
  }

  TEST_CASE("linear: a 4-bit layer multiplies with its dequantized weight, and has no parameter") {
    const torch::Tensor weight = random_tensor({7, 9}, 4);
    Linear linear(9, 7);
    linear->set_quantized(quantize_4bit(weight), torch::kFloat32);
    linear->set_bias(random_tensor({7}, 5));
    CHECK(linear->is_quantized());
    CHECK(linear->parameters().size() == 1);  // the bias
    const torch::Tensor x = random_tensor({4, 9}, 6);
    CHECK(distance(linear(x), at::linear(x, linear->dense_weight(), linear->bias())) < 1e-6);
    linear->set_dense(weight);
    CHECK_FALSE(linear->is_quantized());
    CHECK(torch::equal(linear->dense_weight(), weight));
  }

  TEST_CASE("linear: to(bfloat16) leaves the bytes of a 4-bit weight as they are") {
    Linear linear(64, 64);
    linear->set_quantized(quantize_4bit(random_tensor({64, 64}, 7), {.use_double_quant = true}),
                          torch::kFloat32);
    linear->set_bias(torch::zeros({64}));
    const torch::Tensor codes = linear->quantized().codes().clone();
    const torch::Tensor absmax = linear->quantized().absmax().clone();
    const torch::Tensor x = random_tensor({2, 64}, 8);
    const torch::Tensor before = linear(x);
    // Through a parent too: Module::to of the parent calls that of its children.
    struct Parent : torch::nn::Module {};
    auto parent = std::make_shared<Parent>();
    parent->register_module("linear", linear);
    parent->to(torch::kBFloat16);
    CHECK((linear->bias().scalar_type() == torch::kBFloat16));
    CHECK((linear->quantized().codes().scalar_type() == torch::kUInt8));
    CHECK(torch::equal(linear->quantized().codes(), codes));
    CHECK((linear->quantized().absmax().scalar_type() == absmax.scalar_type()));
    CHECK(torch::equal(linear->quantized().absmax(), absmax));
    CHECK((linear->quantized().dtype() == torch::kFloat32));
    parent->to(torch::kFloat32);
    parent->to(torch::kCPU, torch::kFloat32);
    parent->to(torch::kCPU);
    CHECK(torch::equal(linear(x), before));
  }

  TEST_CASE("linear: an adapter adds to the output, is a submodule, and can be switched off") {
    const torch::Tensor weight = random_tensor({5, 3}, 9);
    Linear linear(weight);
    const torch::Tensor x = random_tensor({4, 3}, 10);
    const torch::Tensor base = linear(x);
    auto shift = std::make_shared<Shift>(3, 5);
    linear->attach(shift);
    CHECK(linear->named_parameters().contains("lora.update"));
    CHECK(distance(linear(x), at::linear(x, weight + shift->update)) < 1e-6);
    linear->set_adapter_enabled(false);
    CHECK(torch::equal(linear(x), base));
    linear->set_adapter_enabled(true);
    CHECK(contains(error_of([&] { linear->attach(shift); }), "already"));
    CHECK(linear->detach_adapter() == shift);
    CHECK(linear->detach_adapter() == nullptr);
    CHECK(torch::equal(linear(x), base));
    CHECK_FALSE(linear->named_parameters().contains("lora.update"));
    CHECK(contains(error_of([&] { linear->attach(nullptr); }), "null"));
  }

  TEST_CASE("linear: a float32 adapter on a bfloat16 layer gives bfloat16, added in float32") {
    const torch::Tensor weight = random_tensor({5, 3}, 11, torch::kBFloat16);
    Linear linear(weight);
    auto shift = std::make_shared<Shift>(3, 5);
    linear->attach(shift);
    const torch::Tensor x = random_tensor({4, 3}, 12, torch::kBFloat16);
    const torch::Tensor y = linear(x);
    const torch::Tensor want = at::linear(x, weight).to(torch::kFloat32) +
                               at::linear(x.to(torch::kFloat32), shift->update);
    CHECK((y.scalar_type() == torch::kBFloat16));
    CHECK(torch::equal(y, want.to(torch::kBFloat16)));
    y.sum().backward();
    CHECK((shift->update.grad().scalar_type() == torch::kFloat32));
  }

  TEST_CASE("linear: beside a 4-bit weight the adapter's part is rounded before the sum") {
    const torch::Tensor weight = random_tensor({5, 3}, 13, torch::kBFloat16);
    Linear linear(3, 5);
    linear->set_quantized(quantize_4bit(weight), torch::kFloat32);
    const torch::Tensor x = random_tensor({4, 3}, 14, torch::kBFloat16);
    const torch::Tensor base = linear(x);
    auto shift = std::make_shared<Shift>(3, 5);
    linear->attach(shift);
    CHECK(torch::equal(linear(x), base + shift->delta(x).to(torch::kBFloat16)));
  }

  TEST_CASE("linear: gradients reach the input and the adapter of a 4-bit layer, at any rank") {
    const torch::Tensor weight = random_tensor({5, 3}, 15);
    Linear linear(3, 5);
    linear->set_quantized(quantize_4bit(weight), torch::kFloat32);
    auto shift = std::make_shared<Shift>(3, 5);
    linear->attach(shift);
    for (const std::vector<std::int64_t>& shape :
         {std::vector<std::int64_t>{4, 3}, std::vector<std::int64_t>{2, 4, 3}}) {
      const torch::Tensor x = random_tensor(shape, 16).set_requires_grad(true);
      const torch::Tensor effective = linear->dense_weight() + shift->update;
      const auto got = torch::autograd::grad({linear(x).square().sum()}, {x, shift->update});
      const auto want =
          torch::autograd::grad({at::linear(x, effective).square().sum()}, {x, shift->update});
      CHECK(distance(got[0], want[0]) < 1e-6);
      CHECK(distance(got[1], want[1]) < 1e-6);
    }
  }

  TEST_CASE("for_each_linear: names every linear layer as transformers does, and no adapter's") {
    ModelConfig config = toy_config();
    config.num_hidden_layers = 1;
    auto model = toy_model(config);
    model->model()->layers[0]->self_attn->q_proj->attach(std::make_shared<Shift>(36, 60));
    std::vector<std::string> paths;
    for_each_linear(*model, [&](const std::string& path, LinearImpl&) { paths.push_back(path); });
    CHECK(paths == std::vector<std::string>{
                       "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj",
                       "model.layers.0.self_attn.v_proj", "model.layers.0.self_attn.o_proj",
                       "model.layers.0.mlp.gate_proj", "model.layers.0.mlp.up_proj",
                       "model.layers.0.mlp.down_proj", "lm_head"});
  }

  TEST_CASE("num_parameters: counts 4-bit elements, and a tied weight once") {
    ModelConfig config = toy_config();
    auto model = toy_model(config);
    CHECK(num_parameters(*model) == count_parameters(config));
    for_each_linear(*model, [](const std::string&, LinearImpl& linear) {
      linear.set_quantized(quantize_4bit(linear.dense_weight()));
    });
    CHECK(num_parameters(*model) == count_parameters(config));
    config.tie_word_embeddings = true;
    const auto tied = toy_model(config);
    CHECK(num_parameters(*tied) == count_parameters(config));
    CHECK(count_parameters(config) == num_parameters(*model) - 61 * 36);
    CHECK_FALSE(tied->named_parameters().contains("lm_head.weight"));
  }

  TEST_CASE("seed_dropout: reaches the adapters of every layer and of the head") {
    auto model = toy_model();
    std::vector<std::shared_ptr<Shift>> shifts;
    for_each_linear(*model, [&](const std::string&, LinearImpl& linear) {
      shifts.push_back(std::make_shared<Shift>(linear.in_features(), linear.out_features()));
      linear.attach(shifts.back());
    });
    model->seed_dropout(77);
    CHECK(shifts.size() == 22);
    for (const auto& shift : shifts) CHECK(shift->seeds == std::vector<std::uint64_t>{77});
  }
}
