// Layers that are one product on a GPU (stacked_linear_4bit), with what is read from its columns
// and added to it, against the same on the CPU.
#include "cuda/tensor_gpu.hpp"
#include "cuda/tensor_layer.hpp"
#include "support/error_of.hpp"
#include "support/golden.hpp"
#include "support/temporary_folder.hpp"

#include <lorapp/nn/linear.hpp>
#include <lorapp/nn/mlp.hpp>
#include <lorapp/peft/dropout.hpp>
#include <lorapp/peft/peft_model.hpp>
#include <lorapp/quant/ops.hpp>
#include <lorapp/train/loss.hpp>

#include <doctest/doctest.h>
#include <torch/types.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <utility>
#include <vector>

using namespace lorapp;
using namespace lorapp::test;

namespace {

namespace cuda = kernels::cuda;

// What products were asked for.
struct Seen {
  int few = 0, forward = 0, backward = 0, added = 0, swiglu_rows = 0;
  std::int64_t dy_stride = 0;
  bool gathered = false;
};
Seen seen;

// This build's kernels, which say so.
cuda::Launchers make_watched() {
  cuda::Launchers own = *cuda::launchers();
  own.linear_forward = [](const cuda::DenseProducts& products, const cuda::LinearStack& stack,
                          const cuda::LinearForwardArgs& args, void* stream) {
    ++seen.forward;
    if (args.added != nullptr) ++seen.added;
    return cuda::launchers()->linear_forward(products, stack, args, stream);
  };
  own.small_products = [](const cuda::SmallProductArgs* parts, int count, void* stream) {
    ++seen.few;
    if (parts->added != nullptr) ++seen.added;
    return cuda::launchers()->small_products(parts, count, stream);
  };
  own.linear_backward = [](const cuda::DenseProducts& products, const cuda::LinearStack& stack,
                           const cuda::LinearBackwardArgs& args, void* stream) {
    ++seen.backward;
    if (stack.count > 1) {
      seen.dy_stride = args.dy_stride;
      seen.gathered = args.dy_and_v == args.dy;  // made for this product, with room for v
    }
    return cuda::launchers()->linear_backward(products, stack, args, stream);
  };
  own.swiglu = [](const kernels::SwiGluArgs& args, void* stream, const cuda::GateRows& rows) {
    if (rows.size > 0) ++seen.swiglu_rows;
    return cuda::launchers()->swiglu(args, stream, rows);
  };
  return own;
}

const cuda::Launchers& watched() {
  static const cuda::Launchers kWatched = make_watched();
  return kWatched;
}

// The gradients and result of `f` of `inputs`, on the CPU: dy is random.
std::vector<torch::Tensor> results(
    const std::function<torch::Tensor(const std::vector<torch::Tensor>&)>& f,
    const std::vector<torch::Tensor>& inputs,
    const torch::Device& device) {
  std::vector<torch::Tensor> leaves;
  for (const torch::Tensor& each : inputs) leaves.push_back(leaf(each, device));
  const torch::Tensor y = f(leaves);
  y.backward(random(y.sizes().vec(), 50).to(y.scalar_type()).to(device));
  std::vector<torch::Tensor> found{host(y.detach())};
  for (const torch::Tensor& each : leaves) found.push_back(host(each.grad()));
  return found;
}

}  // namespace

TEST_SUITE("stacks of layers on a GPU") {
  TEST_CASE(
      "layers of a stack have the results and gradients that they have alone, of few tokens and "
      "many, with dropout, without some gradients, and over any base") {
    struct Case {
      std::int64_t tokens;
      bool masked, one_unused, biased;
    };
    for (const Case& each :
         {Case{4, false, false, true}, Case{4, true, false, false}, Case{70, false, false, true},
          Case{70, true, false, true}, Case{70, false, true, false}, Case{0, false, false, true}}) {
      CAPTURE(each.tokens);
      CAPTURE(each.masked);
      std::vector<Layer> layers = {layer(64, 128, each.biased, 5, false),
                                   layer(32, 128, false, 16, true), layer(16, 128, true, 0, false)};
      if (each.masked) {
        for (Layer& one : layers) {
          if (!one.term) continue;
          one.term->mask = [seed = one.w.size(0)](const torch::Tensor& x) {
            return seeded_dropout(x, 0.25, static_cast<std::uint64_t>(seed));
          };
        }
      }
      const torch::Tensor x = random({each.tokens, 128}, 7);
      // y, dx, then each layer's gradients.
      const auto run_stack = [&](const torch::Device& device, torch::Dtype dtype) {
        const torch::Tensor input = leaf(x, device);
        std::vector<QuantizedTensor> weights;
        for (const Layer& one : layers) weights.push_back(one.w.to(device));
        std::vector<Projection> stack;
        for (const Layer& one : layers) {
          Projection part{weights[stack.size()], std::nullopt, one.term};
          if (one.bias) part.bias = leaf(*one.bias, device);
          if (part.low_rank) {
            part.low_rank->a = leaf(part.low_rank->a, device);
            part.low_rank->b = leaf(part.low_rank->b, device);
          }
          stack.push_back(part);
        }
        const auto y = stacked_linear_4bit(input, stack, dtype);
        REQUIRE(y.size() == 3);
        torch::Tensor sum;
        std::vector<torch::Tensor> found;
        for (std::size_t i = 0; i < y.size(); ++i) {
          found.push_back(host(y[i].detach()));
          if (each.one_unused && i == 1) continue;
          const torch::Tensor dy = random(y[i].sizes().vec(), 90 + i).to(device);
          const torch::Tensor part = (y[i] * dy).sum();
          sum = sum.defined() ? sum + part : part;
        }
        sum.backward();
        found.push_back(host(input.grad()));
        for (const Projection& part : stack) {
          if (part.bias) found.push_back(host(part.bias->grad()));
          if (!part.low_rank) continue;
          found.push_back(host(part.low_rank->a.grad()));
          found.push_back(host(part.low_rank->b.grad()));
        }
        return found;
      };
      const auto want = run_stack(torch::kCPU, torch::kFloat32);
      const TensorGpu gpu;
      const auto got = run_stack(gpu.device(), torch::kBFloat16);
      REQUIRE(got.size() == want.size());
      for (std::size_t i = 0; i < got.size(); ++i) {
        CAPTURE(i);
        if (!want[i].defined()) {  // of a layer that was not used
          CHECK((!got[i].defined() || got[i].count_nonzero().item<std::int64_t>() == 0));
          continue;
        }
        CHECK(difference(got[i], want[i]) < kHalfTolerance);
      }
    }
    CHECK(contains(error_of([] { stacked_linear_4bit(random({2, 64}), {}); }), "no layers"));
  }

  TEST_CASE(
      "gate and up are one product; of many tokens swiglu reads its columns, and their gradients "
      "are read where it leaves them") {
    const Layer gate = layer(64, 128, true, 5, false), up = layer(64, 128, false, 16, true);
    const auto run = [&](const torch::Tensor& x, const torch::Device& device, torch::Dtype dtype) {
      const QuantizedTensor w[] = {gate.w.to(device), up.w.to(device)};
      return results(
          [&](const std::vector<torch::Tensor>& in) {
            const auto both =
                stacked_linear_4bit(in[0],
                                    {{w[0], in[1], LowRank{in[2], in[3], 0.25, {}, {}}},
                                     {w[1], std::nullopt, LowRank{in[4], in[5], 0.5, {}, {}}}},
                                    dtype);
            return swiglu(both[0], both[1]);
          },
          {x, *gate.bias, gate.term->a, gate.term->b, up.term->a, up.term->b}, device);
    };
    for (const std::int64_t tokens : {3, 70}) {
      CAPTURE(tokens);
      const torch::Tensor x = random({tokens, 128}, 7, torch::kBFloat16);
      const auto want = run(x.to(torch::kFloat32), torch::kCPU, torch::kFloat32);
      const TensorGpu gpu(watched());
      seen = {};
      const auto got = run(x, gpu.device(), torch::kBFloat16);
      CHECK(seen.backward == 1);
      CHECK(seen.forward == (tokens > 64 ? 1 : 0));
      CHECK(seen.few == (tokens > 64 ? 0 : 1));
      CHECK(seen.swiglu_rows == (tokens > 64 ? 1 : 0));
      if (tokens > 64) {
        CHECK(seen.dy_stride == 128);
        CHECK_FALSE(seen.gathered);
      }
      for (std::size_t i = 0; i < want.size(); ++i) {
        CAPTURE(i);
        CHECK(difference(got[i], want[i]) < 2 * kHalfTolerance);
      }
    }
  }

  TEST_CASE(
      "columns that are no neighbours, or of another type, have the gradients of neighbours") {
    const Layer first = layer(64, 128, false, 5, false), second = layer(64, 128, false, 3, false);
    const TensorGpu gpu(watched());
    torch::Tensor x = random({70, 128}, 7, torch::kBFloat16),
                  both = random({70, 136}, 8, torch::kBFloat16).to(gpu.device());
    // Gradients next to each other; with a gap; the other way round; of two tensors.
    const auto gradients = [&](std::int64_t left, std::int64_t right) {
      return std::vector<torch::Tensor>{both.slice(1, left, left + 64),
                                        both.slice(1, right, right + 64)};
    };
    const auto run = [&](const std::vector<torch::Tensor>& dy) {
      const QuantizedTensor w[] = {first.w.to(gpu.device()), second.w.to(gpu.device())};
      const torch::Tensor input = leaf(x, gpu.device()), a = leaf(first.term->a, gpu.device()),
                          b = leaf(first.term->b, gpu.device());
      const auto y = stacked_linear_4bit(
          input,
          {{w[0], std::nullopt, LowRank{a, b, 0.25, {}, {}}}, {w[1], std::nullopt, std::nullopt}},
          torch::kBFloat16);
      seen = {};
      torch::autograd::backward({y[0], y[1]}, dy);
      return std::vector<torch::Tensor>{host(input.grad()), host(a.grad()), host(b.grad())};
    };
    const auto check = [&](std::int64_t left, std::int64_t right, bool gathered) {
      CAPTURE(left);
      CAPTURE(right);
      const auto dy = gradients(left, right);
      const auto got = run(dy);
      CHECK(seen.gathered == gathered);
      const auto want = run({dy[0].contiguous(), dy[1].contiguous()});
      CHECK(seen.gathered);
      for (std::size_t i = 0; i < want.size(); ++i) {
        CHECK(difference(got[i], want[i]) < kHalfTolerance);
      }
    };
    check(0, 64, false);
    check(8, 72, false);
    check(0, 72, true);
    check(64, 0, true);
    check(4, 68, true);
    x = x.to(torch::kFloat32), both = both.to(torch::kFloat32);
    check(0, 64, true);
  }

  TEST_CASE(
      "a residual is part of one layer's product in bfloat16, keeps its own type elsewhere, and "
      "has the result's gradient") {
    for (const bool low_rank : {false, true}) {
      for (const auto dtype : {torch::kBFloat16, torch::kFloat32}) {
        for (const std::int64_t tokens : {3, 70}) {
          CAPTURE(low_rank);
          CAPTURE(dtype);
          CAPTURE(tokens);
          const Layer each = layer(64, 128, true, low_rank ? 5 : 0, false);
          const torch::Tensor x = random({2, tokens, 128}, 7, dtype),
                              residual = random({2, tokens, 64}, 8, dtype) * 100;
          const auto run = [&](const torch::Device& device, torch::Dtype compute_dtype) {
            const QuantizedTensor w = each.w.to(device);
            std::optional<LowRank> term = each.term;
            if (term) term->a = term->a.to(device), term->b = term->b.to(device);
            return results(
                [&](const std::vector<torch::Tensor>& in) {
                  return stacked_linear_4bit(in[0], {{w, in[2], term, in[1]}}, compute_dtype)
                      .front();
                },
                {x, residual, *each.bias}, device);
          };
          const auto want = run(torch::kCPU, torch::kFloat32);
          const TensorGpu gpu(watched());
          seen = {};
          const auto got = run(gpu.device(), torch::kBFloat16);
          CHECK(seen.added == (dtype == torch::kBFloat16 ? 1 : 0));
          for (std::size_t i = 0; i < want.size(); ++i) {
            CAPTURE(i);
            CHECK(difference(got[i], want[i]) < kHalfTolerance);
          }
          CHECK(torch::equal(got[2], want[2]));  // dy itself
          if (dtype ==
              torch::kFloat32) {  // what the residual has behind bfloat16's digits is there
            CHECK(difference(got[0] - residual, want[0] - residual) < kHalfTolerance);
          }
        }
      }
    }
  }

  TEST_CASE("a residual that is not like the result is added as LibTorch does") {
    const TensorGpu gpu(watched());
    const Layer each = layer(64, 128, false, 0, false);
    const QuantizedTensor w = each.w.to(gpu.device());
    const torch::Tensor x = random({70, 128}, 7, torch::kBFloat16).to(gpu.device()),
                        y = linear_4bit(x, w, {}, torch::kBFloat16);
    seen = {};
    for (const torch::Tensor& residual :
         {random({64}, 8, torch::kBFloat16), random({70, 64}, 8), random({1, 70, 64}, 9)}) {
      const torch::Tensor added = residual.to(gpu.device());
      const torch::Tensor got =
          stacked_linear_4bit(x, {{w, std::nullopt, std::nullopt, added}}, torch::kBFloat16)
              .front();
      CHECK((got.scalar_type() == residual.scalar_type()));
      CHECK(torch::equal(host(got), residual + host(y)));
    }
    CHECK(seen.added == 0);
  }

  TEST_CASE("a layer adds a residual as the sum of both, whatever its weight is") {
    const TensorGpu gpu(watched());
    const torch::Tensor weight = random({64, 128}, 1), x = random({70, 128}, 7),
                        residual = random({70, 64}, 8);
    for (const int kind : {0, 1, 2}) {
      CAPTURE(kind);
      const auto made = [&](const torch::Device& device) {
        Linear linear(128, 64);
        if (kind == 0) linear->set_dense(weight.to(device));
        if (kind == 1) linear->set_quantized(quantize_4bit(weight).to(device), torch::kFloat32);
        if (kind == 2) linear->set_int8(quantize_int8(weight).to(device));
        return linear;
      };
      Linear here = made(torch::kCPU), there = made(gpu.device());
      const torch::Tensor want = residual + here(x);
      CHECK(torch::equal(here->forward_onto(residual, x), want));
      const torch::Tensor got = there->forward_onto(residual.to(gpu.device()), x.to(gpu.device()));
      CHECK(difference(host(got.detach()), want.detach()) < 1e-5);
    }
  }

  TEST_CASE(
      "a layer of a decoder in bfloat16 is four products each way, two with the residual, and has "
      "the CPU's gradients") {
    const PackedInput input = PackedInput::pack(
        {{3, 17, 60, 0, 5, 9, 9, 2, 33, 8, 7, 6, 5, 4, 3, 2, 1}, {1, 2, 3, 4, 5, 6, 7, 8, 9}});
    // Sizes that kernels multiply with; the golden models have others.
    ModelConfig config = ModelConfig::from_pretrained(test::golden_path("mistral"));
    config.intermediate_size = 96;
    const test::TemporaryFolder folder;
    CausalLM::from_config(config, 5)->save_pretrained(folder / "model");
    const auto run = [&](const torch::Device& device) {
      LoadOptions options;
      options.dtype = torch::kBFloat16;
      options.device = device;
      options.quant_config = QuantConfig{.compute_dtype = torch::kBFloat16};
      PeftModel model =
          PeftModel::from_pretrained(CausalLM::from_pretrained(folder / "model", options),
                                     test::golden_path("mistral/adapter"), /*is_trainable=*/true);
      seen = {};
      const torch::Tensor logits = model.forward(input);
      logits.backward(random(logits.sizes().vec(), 50).to(logits.scalar_type()).to(device));
      std::vector<torch::Tensor> found{host(logits.detach())};
      for (const torch::Tensor& parameter : model.parameters()) {
        if (parameter.grad().defined()) found.push_back(host(parameter.grad()));
      }
      return std::pair(found, model.base()->config().num_hidden_layers);
    };
    const auto [want, layers] = run(torch::kCPU);
    const TensorGpu gpu(watched());
    const auto got = run(gpu.device()).first;
    CHECK(seen.forward == 4 * layers);
    CHECK(seen.added == 2 * layers);
    CHECK(seen.swiglu_rows == layers);
    CHECK(seen.backward == 4 * layers);
    REQUIRE(got.size() == want.size());
    CHECK(want.size() > 1);
    for (std::size_t i = 0; i < want.size(); ++i) {
      CAPTURE(i);
      CHECK(difference(got[i], want[i]) < 5 * kHalfTolerance);
    }
  }

  TEST_CASE("the head takes more rows at a time on a GPU, whole tiles of products") {
    const TensorGpu gpu;
    CHECK(head_chunk_rows(32000, gpu.device()) == 2048);
    CHECK(head_chunk_rows(32000, torch::kCPU) == head_chunk_rows(32000));
    CHECK(head_chunk_rows(0, gpu.device()) == head_chunk_rows(0));
  }
}
