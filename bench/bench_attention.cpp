// Attention beside LibTorch's: floating-point operations a second over the pairs of tokens that see
// each other, or bytes of keys and values a second. Names: BM_<kind>/<lorapp or torch>/<dtype>/
// <heads>x<kv_heads>x<head size>/<sequences>x<tokens>, and for decoding /<past>.
#include <lorapp/nn/attention.hpp>

#include "support/mistral_shapes.hpp"

#include <torch/autograd.h>

using namespace lorapp;

namespace {

struct Heads {
  std::int64_t heads, kv_heads, size;
};

torch::Tensor random_rows(std::int64_t rows,
                          std::int64_t heads,
                          std::int64_t size,
                          at::ScalarType dtype) {
  const at::Generator generator = at::detail::createCPUGenerator(1);
  return at::randn({rows, heads, size}, generator).to(dtype);
}

// As it is done without kernels of one's own: one call for each sequence, put together after.
torch::Tensor torch_attention(const torch::Tensor& q,
                              const torch::Tensor& k,
                              const torch::Tensor& v,
                              const std::vector<std::int64_t>& ends) {
  std::vector<torch::Tensor> sequences;
  for (std::size_t i = 0; i + 1 < ends.size(); ++i) {
    sequences.push_back(attend(q.slice(0, ends[i], ends[i + 1]),
                               k.slice(0, ends[i], ends[i + 1]).transpose(0, 1),
                               v.slice(0, ends[i], ends[i + 1]).transpose(0, 1), 0));
  }
  return sequences.size() == 1 ? sequences.front() : at::cat(sequences, 0);
}

void attention(benchmark::State& state,
               bool backward,
               bool with_torch,
               Heads heads,
               at::ScalarType dtype,
               std::int64_t sequences,
               std::int64_t tokens) {
  std::vector<std::int64_t> ends = {0};
  for (std::int64_t i = 0; i < sequences; ++i) ends.push_back(ends.back() + tokens);
  std::vector<torch::Tensor> leaves;
  for (const std::int64_t count : {heads.heads, heads.kv_heads, heads.kv_heads}) {
    leaves.push_back(
        random_rows(ends.back(), count, heads.size, dtype).set_requires_grad(backward));
  }
  const torch::Tensor dout =
      random_rows(ends.back(), heads.heads, heads.size, dtype).view({ends.back(), -1});
  for (auto _ : state) {
    const torch::Tensor out = with_torch
                                  ? torch_attention(leaves[0], leaves[1], leaves[2], ends)
                                  : packed_attention(leaves[0], leaves[1], leaves[2], ends, 0);
    if (backward) benchmark::DoNotOptimize(torch::autograd::grad({out}, leaves, {dout}));
    benchmark::DoNotOptimize(out);
  }
  const double pairs = static_cast<double>(sequences * heads.heads * tokens * (tokens + 1) / 2);
  const double flops = 4 * pairs * static_cast<double>(heads.size) * (backward ? 3.5 : 1);
  state.counters["flops"] = benchmark::Counter(flops * static_cast<double>(state.iterations()),
                                               benchmark::Counter::kIsRate);
}

void decode(benchmark::State& state,
            bool with_torch,
            Heads heads,
            at::ScalarType dtype,
            std::int64_t past) {
  const torch::NoGradGuard no_grad;
  const torch::Tensor q = random_rows(1, heads.heads, heads.size, dtype);
  const torch::Tensor k = random_rows(heads.kv_heads, past, heads.size, dtype);
  const torch::Tensor v = k.clone();
  for (auto _ : state) {
    benchmark::DoNotOptimize(with_torch ? attend(q, k, v, 0) : cached_attention(q, k, v, 0));
  }
  state.counters["bytes"] =
      benchmark::Counter(static_cast<double>((k.nbytes() + v.nbytes()) * state.iterations()),
                         benchmark::Counter::kIsRate);
}

}  // namespace

int main(int argc, char** argv) {
  const auto add = [](const std::string& name, auto... arguments) {
    benchmark::RegisterBenchmark(name.c_str(), arguments...)
        ->Unit(benchmark::kMillisecond)
        ->UseRealTime();
  };
  for (const auto& [dtype, type] : {std::pair{at::kFloat, "f32"}, {at::kBFloat16, "bf16"}}) {
    for (const Heads heads : {Heads{32, 8, 128}, Heads{16, 4, 64}}) {
      const std::string shape = std::string("/") + type + "/" + std::to_string(heads.heads) + "x" +
                                std::to_string(heads.kv_heads) + "x" + std::to_string(heads.size) +
                                "/";
      for (const bool with_torch : {false, true}) {
        const std::string whose = with_torch ? "/torch" : "/lorapp";
        for (const auto& [sequences, tokens] :
             {std::pair<std::int64_t, std::int64_t>{4, 256}, {64, 128}, {1, 2048}, {1, 8192}}) {
          const std::string name =
              whose + shape + std::to_string(sequences) + "x" + std::to_string(tokens);
          add("BM_Attention" + name, attention, false, with_torch, heads, dtype, sequences, tokens);
          add("BM_AttentionBackward" + name, attention, true, with_torch, heads, dtype, sequences,
              tokens);
        }
        for (const std::int64_t past : {512, 4096}) {
          add("BM_Decode" + whose + shape + std::to_string(past), decode, with_torch, heads, dtype,
              past);
        }
      }
    }
  }
  return bench::run(argc, argv);
}
