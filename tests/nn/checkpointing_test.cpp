#include "nn/toy.hpp"

#include <lorapp/nn/checkpointing.hpp>

#include <map>
#include <memory>
#include <string>
#include <vector>

using namespace lorapp;
using namespace lorapp::test;

namespace {

// A low-rank adapter whose dropout mask is a function of the seed and its index, as LoRA's is.
struct DropoutAdapter : LinearAdapter {
  DropoutAdapter(std::int64_t in, std::int64_t out, std::uint64_t index)
      : a(register_parameter("A", random_tensor({2, in}, 100 + index) * 0.3)),
        b(register_parameter("B", random_tensor({out, 2}, 200 + index) * 0.3)),
        index_(index) {}
  torch::Tensor delta(const torch::Tensor& x) override {
    torch::Tensor kept = x;
    if (is_training()) {
      at::Generator generator = at::detail::createCPUGenerator(seed_ * 1000 + index_);
      const torch::Tensor mask = at::empty(x.sizes(), x.options()).bernoulli_(0.5, generator);
      kept = x * mask * 2;
    }
    return at::linear(at::linear(kept, a), b);
  }
  torch::Tensor delta_weight() override { return b.mm(a); }
  void seed_dropout(std::uint64_t seed) override { seed_ = seed; }
  torch::Tensor a, b;

 private:
  std::uint64_t index_;
  std::uint64_t seed_ = 0;
};

std::shared_ptr<DecoderLM> adapted_model(bool frozen_base) {
  auto model = toy_model();
  for (torch::Tensor& parameter : model->parameters()) parameter.set_requires_grad(!frozen_base);
  std::uint64_t index = 0;
  for_each_linear(*model, [&](const std::string& path, LinearImpl& linear) {
    if (!path.ends_with("q_proj") && !path.ends_with("v_proj")) return;
    linear.attach(
        std::make_shared<DropoutAdapter>(linear.in_features(), linear.out_features(), index++));
  });
  model->train();
  return model;
}

std::map<std::string, torch::Tensor> gradients_of(const DecoderLM& model) {
  std::map<std::string, torch::Tensor> found;
  for (const auto& item : model.named_parameters()) {
    if (item.value().grad().defined()) found[item.key()] = item.value().grad().clone();
  }
  return found;
}

void check_same(const std::map<std::string, torch::Tensor>& got,
                const std::map<std::string, torch::Tensor>& want) {
  CHECK(got.size() == want.size());
  for (const auto& [key, gradient] : want) {
    const std::string& name = key;  // clang 14 captures no binding
    CAPTURE(name);
    REQUIRE(got.count(name) == 1);
    CHECK(torch::equal(got.at(name), gradient));
  }
}

}  // namespace

TEST_SUITE("nn") {
  TEST_CASE("checkpointing: loss and gradients are the same bits, with a frozen base or without") {
    const PackedInput input = PackedInput::pack({random_ids(9, 61, 1), random_ids(4, 61, 2)});
    for (const bool frozen_base : {true, false}) {
      std::map<std::string, torch::Tensor> want;
      torch::Tensor loss;
      for (const auto& mode : kCheckpointingModes) {
        auto model = adapted_model(frozen_base);
        model->set_gradient_checkpointing(mode.first);
        // Several micro-batches, each with masks of its own, accumulate.
        torch::Tensor total = torch::zeros({});
        for (const std::uint64_t seed : {11, 12, 13}) {
          model->seed_dropout(seed);
          const torch::Tensor part = model->forward(input).square().mean();
          part.backward();
          total += part.detach();
        }
        if (mode.first == CheckpointingMode::none) {
          want = gradients_of(*model);
          loss = total;
          CHECK(want.size() == (frozen_base ? 12 : 12 + 3 + 3 * 9));
          continue;
        }
        CHECK(torch::equal(total, loss));
        check_same(gradients_of(*model), want);
      }
    }
  }

  TEST_CASE(
      "checkpointing: a backward pass after the next seed still has the masks of its forward") {
    const PackedInput input = PackedInput::single(random_ids(9, 61, 1));
    std::map<std::string, torch::Tensor> want;
    for (const auto& mode : kCheckpointingModes) {
      auto model = adapted_model(true);
      model->set_gradient_checkpointing(mode.first);
      model->seed_dropout(1);
      const torch::Tensor first = model->forward(input).square().mean();
      model->seed_dropout(2);
      const torch::Tensor second = model->forward(input).square().mean();
      model->eval();
      first.backward();
      second.backward();
      CHECK_FALSE(model->is_training());
      CHECK_FALSE(model->model()->layers[0]->is_training());
      if (mode.first == CheckpointingMode::none) {
        want = gradients_of(*model);
      } else {
        check_same(gradients_of(*model), want);
      }
    }
  }

  TEST_CASE("checkpointing: inside the block nothing is kept, and it runs once a backward pass") {
    int calls = 0;
    bool with_graph = true;
    const torch::Tensor w = random_tensor({3, 3}, 1).set_requires_grad(true);
    const torch::Tensor x = random_tensor({2, 3}, 2);  // needs no gradient
    const auto block = [&](const torch::Tensor& input) {
      ++calls;
      with_graph = torch::GradMode::is_enabled();
      return input.mm(w).tanh();
    };
    const torch::Tensor y = checkpoint(block, x, {w});
    CHECK(calls == 1);
    CHECK_FALSE(with_graph);
    CHECK(y.requires_grad());
    const torch::Tensor loss = y.square().sum();
    loss.backward({}, /*retain_graph=*/true);
    CHECK(calls == 2);
    CHECK(with_graph);
    const torch::Tensor once = w.grad().clone();
    loss.backward();
    CHECK(calls == 3);
    CHECK(torch::equal(w.grad(), once + once));
    const torch::Tensor plain = x.mm(w).tanh().square().sum();
    CHECK(torch::equal(torch::autograd::grad({plain}, {w})[0], once));
  }

  TEST_CASE("checkpointing: torch::autograd::grad sees through it, to the input and parameters") {
    const torch::Tensor w = random_tensor({3, 3}, 1).set_requires_grad(true);
    const torch::Tensor unused = random_tensor({3}, 3).set_requires_grad(true);
    const torch::Tensor x = random_tensor({2, 3}, 2).set_requires_grad(true);
    const auto block = [&](const torch::Tensor& input) { return input.mm(w).tanh() + input; };
    const torch::Tensor y = checkpoint(block, checkpoint(block, x, {w, unused}), {w, unused});
    const auto got = torch::autograd::grad({y.square().sum()}, {x, w});
    const auto want = torch::autograd::grad({block(block(x)).square().sum()}, {x, w});
    CHECK(torch::equal(got[0], want[0]));
    CHECK(torch::equal(got[1], want[1]));
    CHECK_FALSE(w.grad().defined());
  }

  TEST_CASE(
      "checkpointing: second derivatives are refused, and without gradients nothing is built") {
    const torch::Tensor x = random_tensor({2, 3}, 2).set_requires_grad(true);
    const auto block = [](const torch::Tensor& input) { return input.tanh(); };
    const torch::Tensor y = checkpoint(block, x, {});
    CHECK(contains(error_of([&] {
                     torch::autograd::grad({y.sum()}, {x}, {},
                                           /*retain_graph=*/true,
                                           /*create_graph=*/true);
                   }),
                   "second derivatives"));
    const torch::NoGradGuard no_grad;
    CHECK_FALSE(checkpoint(block, x, {}).requires_grad());
  }
}
