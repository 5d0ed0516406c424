// Operations over rows and flat buffers beside the same ones of LibTorch's operations, forward and
// with gradients, and beside a copy: bytes a second that have to be moved at least. Sizes of a 7B
// model: hidden 4096, feed-forward 14336, vocabulary 32000.
// Names: BM_Copy/<dtype>/<MiB>, BM_<Op>/<kernel|composed>/<dtype>.
#include <lorapp/nn/mlp.hpp>
#include <lorapp/nn/rms_norm.hpp>
#include <lorapp/nn/rotary.hpp>
#include <lorapp/peft/dropout.hpp>
#include <lorapp/train/adamw.hpp>
#include <lorapp/train/loss.hpp>

#include "support/mistral_shapes.hpp"

#include <torch/autograd.h>

#include <cstring>
#include <functional>
#include <utility>
#include <vector>

using namespace lorapp;

namespace {

constexpr std::int64_t kTokens = 1024, kHidden = 4096, kFeedForward = 14336, kVocab = 32000;
constexpr std::int64_t kLogitRows = 256;
constexpr std::int64_t kParameters = 8 << 20;

void set_rate(benchmark::State& state, double bytes) {
  state.counters["bytes"] = benchmark::Counter(bytes * static_cast<double>(state.iterations()),
                                               benchmark::Counter::kIsRate);
}

double bytes_of(const at::Tensor& x) { return static_cast<double>(x.nbytes()); }

at::Tensor random_rows(std::int64_t rows, std::int64_t columns, at::ScalarType dtype) {
  return (bench::random_weight({rows, columns}, at::kFloat) * 50).to(dtype);
}

void copy(benchmark::State& state, at::ScalarType dtype, std::int64_t columns) {
  const at::Tensor from = random_rows(kTokens, columns, dtype), to = at::empty_like(from);
  for (auto _ : state) {
    std::memcpy(to.mutable_data_ptr(), from.const_data_ptr(), from.nbytes());
    benchmark::ClobberMemory();
  }
  set_rate(state, 2 * bytes_of(from));
}

using Function = std::function<at::Tensor(const std::vector<at::Tensor>&)>;

// The value, or the value and the gradients of the inputs.
void operation(benchmark::State& state,
               const Function& f,
               std::vector<at::Tensor> inputs,
               double moved,
               bool backward) {
  if (!backward) {
    const at::NoGradGuard no_grad;
    for (auto _ : state) benchmark::DoNotOptimize(f(inputs));
  } else {
    const at::Tensor dy = at::ones_like(f(inputs));
    std::vector<at::Tensor> leaves;
    for (const at::Tensor& x : inputs) {
      if (x.requires_grad()) leaves.push_back(x);
    }
    for (auto _ : state) benchmark::DoNotOptimize(torch::autograd::grad({f(inputs)}, leaves, {dy}));
  }
  set_rate(state, moved);
}

void add(const std::string& name, const std::function<void(benchmark::State&)>& body) {
  benchmark::RegisterBenchmark(name.c_str(), body)->Unit(benchmark::kMillisecond)->UseRealTime();
}

// `forward` and `both` are the operands that are read or written, in tensors of inputs[0]'s size.
void add_operation(const std::string& op,
                   const std::string& type,
                   const std::vector<std::pair<std::string, Function>>& ways,
                   const std::function<std::vector<at::Tensor>()>& make,
                   int forward,
                   int both) {
  for (const auto& [way, f] : ways) {
    for (const bool backward : {false, true}) {
      add("BM_" + op + (backward ? "Backward/" : "/") + way + "/" + type,
          [f = f, make, forward, both, backward](benchmark::State& state) {
            const std::vector<at::Tensor> inputs = make();
            operation(state, f, inputs, bytes_of(inputs[0]) * (backward ? both : forward),
                      backward);
          });
    }
  }
}

void add_rows(at::ScalarType dtype, const std::string& type) {
  for (const std::int64_t columns : {kHidden, kFeedForward}) {
    add("BM_Copy/" + type + "/" + std::to_string(columns),
        [=](benchmark::State& state) { copy(state, dtype, columns); });
  }
  const at::Tensor weight = at::ones({kHidden}, dtype);
  add_operation(
      "RmsNorm", type,
      {{"kernel", [=](const auto& in) { return rms_norm(in[0], weight, 1e-5); }},
       {"composed",
        [=](const auto& in) { return lorapp::detail::composed_rms_norm(in[0], weight, 1e-5); }}},
      [=] { return std::vector{random_rows(kTokens, kHidden, dtype).requires_grad_()}; }, 2, 5);
  const Rotation rotation = RotaryEmbedding(128, 10000.0).at(at::arange(kTokens), dtype);
  add_operation(
      "Rotate", type,
      {{"kernel", [=](const auto& in) { return rotate(in[0], rotation); }},
       {"composed",
        [=](const auto& in) { return lorapp::detail::composed_rotate(in[0], rotation); }}},
      [=] {
        return std::vector{
            random_rows(kTokens, kHidden, dtype).view({kTokens, -1, 128}).requires_grad_()};
      },
      2, 4);
  add_operation(
      "SwiGlu", type,
      {{"kernel", [](const auto& in) { return swiglu(in[0], in[1]); }},
       {"composed", [](const auto& in) { return lorapp::detail::composed_swiglu(in[0], in[1]); }}},
      [=] {
        return std::vector{random_rows(kTokens, kFeedForward, dtype).requires_grad_(),
                           random_rows(kTokens, kFeedForward, dtype).requires_grad_()};
      },
      3, 8);
  add_operation(
      "Dropout", type,
      {{"kernel", [](const auto& in) { return seeded_dropout(in[0], 0.1, 7); }},
       {"composed", [](const auto& in) { return at::dropout(in[0], 0.1, true); }}},
      [=] { return std::vector{random_rows(kTokens, kHidden, dtype).requires_grad_()}; }, 2, 4);
  // The loss and the gradient of the logits.
  const auto labels = [] { return at::arange(kLogitRows); };
  add("BM_CrossEntropy/kernel/" + type, [=](benchmark::State& state) {
    const at::Tensor logits = random_rows(kLogitRows, kVocab, dtype), targets = labels();
    for (auto _ : state) benchmark::DoNotOptimize(lorapp::detail::row_loss(logits, targets, 1.0));
    set_rate(state, 2 * bytes_of(logits));
  });
  add("BM_CrossEntropy/composed/" + type, [=](benchmark::State& state) {
    const at::Tensor logits = random_rows(kLogitRows, kVocab, dtype).requires_grad_();
    const at::Tensor targets = labels();
    for (auto _ : state) {
      benchmark::DoNotOptimize(
          torch::autograd::grad({lorapp::detail::composed_loss(logits, targets)}, {logits}));
    }
    set_rate(state, 2 * bytes_of(logits));
  });
}

void add_adamw() {
  add("BM_AdamW/kernel/f32", [](benchmark::State& state) {
    at::Tensor p = random_rows(1, kParameters, at::kFloat).requires_grad_();
    AdamW optimizer({{"lora_A.weight", p}}, {.weight_decay = 0.1});
    p.mutable_grad().fill_(0.01);
    for (auto _ : state) optimizer.step(1e-4, 0.5);
    set_rate(state, 7 * bytes_of(p));  // reads p, g, m, v; writes p, m, v
  });
  add("BM_AdamW/element_by_element/f32", [](benchmark::State& state) {
    const at::Tensor p = random_rows(1, kParameters, at::kFloat), g = p * 0.1;
    const at::Tensor m = at::zeros_like(p), v = at::zeros_like(p);
    const AdamWStep step{0.999f, 0.999f, 0.1f, 0.001f, 0.03f, 1e-4f, 1e-8f, 0.5f};
    float *ps = p.mutable_data_ptr<float>(), *ms = m.mutable_data_ptr<float>();
    float* vs = v.mutable_data_ptr<float>();
    const float* gs = g.const_data_ptr<float>();
    for (auto _ : state) {
      for (std::int64_t i = 0; i < kParameters; ++i) step.update(ps[i], gs[i], ms[i], vs[i]);
      benchmark::ClobberMemory();
    }
    set_rate(state, 7 * bytes_of(p));
  });
  add("BM_GradNorm/kernel/f32", [](benchmark::State& state) {
    at::Tensor p = random_rows(1, kParameters, at::kFloat).requires_grad_();
    AdamW optimizer({{"lora_A.weight", p}}, {});
    p.mutable_grad().fill_(0.01);
    for (auto _ : state) benchmark::DoNotOptimize(optimizer.grad_norm());
    set_rate(state, bytes_of(p));
  });
}

}  // namespace

int main(int argc, char** argv) {
  add_rows(at::kFloat, "f32");
  add_rows(at::kBFloat16, "bf16");
  add_adamw();
  return bench::run(argc, argv);
}
