// quantize_4bit, dequantize_4bit and linear_4bit of tensors on a GPU (tensor_gpu.hpp), against the
// same on the CPU.
#include "cuda/tensor_gpu.hpp"
#include "cuda/tensor_layer.hpp"
#include "quant/operands.hpp"
#include "support/error_of.hpp"
#include "support/odd_address.hpp"

#include <lorapp/nn/checkpointing.hpp>
#include <lorapp/peft/dropout.hpp>
#include <lorapp/quant/backend.hpp>
#include <lorapp/quant/ops.hpp>

#include <doctest/doctest.h>
#include <torch/autograd.h>
#include <torch/types.h>

#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <vector>

using namespace lorapp;
using namespace lorapp::test;

namespace {

struct Gradients {
  torch::Tensor y, dx, dbias, da, db;
};

// y and all gradients of linear_4bit, brought to the CPU.
Gradients run(const Layer& layer,
              const torch::Tensor& x,
              torch::Dtype compute_dtype,
              const torch::Device& device) {
  const torch::Tensor input = leaf(x, device);
  std::optional<torch::Tensor> bias;
  if (layer.bias) bias = leaf(*layer.bias, device);
  std::optional<LowRank> term = layer.term;
  if (term) {
    term->a = leaf(term->a, device);
    term->b = leaf(term->b, device);
  }
  const torch::Tensor y = linear_4bit(input, layer.w.to(device), bias, compute_dtype, term);
  y.backward(random(y.sizes().vec(), 99).to(y.scalar_type()).to(device));
  return {host(y.detach()), host(input.grad()), bias ? host(bias->grad()) : torch::Tensor(),
          term ? host(term->a.grad()) : torch::Tensor(),
          term ? host(term->b.grad()) : torch::Tensor()};
}

void check_close(const Gradients& got, const Gradients& want, double tolerance) {
  CHECK(difference(got.y, want.y) < tolerance);
  CHECK(difference(got.dx, want.dx) < tolerance);
  CHECK(difference(got.dbias, want.dbias) < tolerance);
  CHECK(difference(got.da, want.da) < tolerance);
  CHECK(difference(got.db, want.db) < tolerance);
}

}  // namespace

TEST_SUITE("4-bit tensors on a GPU") {
  TEST_CASE("codes, scales and values are the CPU's bytes, for every type and ragged shapes") {
    const TensorGpu gpu;
    for (const auto dtype : {torch::kFloat32, torch::kBFloat16, torch::kFloat16}) {
      for (const std::vector<std::int64_t>& shape :
           {std::vector<std::int64_t>{1}, {63}, {4097}, {33, 70}, {3, 5, 64}}) {
        for (const QuantType type : {QuantType::nf4, QuantType::fp4}) {
          for (const bool nested : {false, true}) {
            CAPTURE(dtype);
            CAPTURE(nested);
            const QuantConfig config{
                .quant_type = type, .use_double_quant = nested, .blocksize = nested ? 64 : 128};
            const torch::Tensor w = random(shape, 5, dtype);
            const QuantizedTensor want = quantize_4bit(w, config),
                                  got = quantize_4bit(w.to(gpu.device()), config);
            CHECK((got.device() == gpu.device()));
            CHECK(torch::equal(host(got.codes()), want.codes()));
            CHECK(torch::equal(host(got.absmax()), want.absmax()));
            CHECK(torch::equal(host(got.code()), want.code()));
            if (nested) {
              CHECK(torch::equal(host(got.nested_absmax()), want.nested_absmax()));
              CHECK(torch::equal(host(got.nested_code()), want.nested_code()));
              CHECK(got.nested_offset() == want.nested_offset());
            }
            for (const auto out : {torch::kFloat32, torch::kBFloat16, torch::kFloat16}) {
              const torch::Tensor dense = dequantize_4bit(got, out);
              CHECK((dense.device() == gpu.device()));
              CHECK(torch::equal(host(dense), dequantize_4bit(want, out)));
            }
          }
        }
      }
    }
  }

  TEST_CASE("a weight that is not finite is named by its position") {
    const TensorGpu gpu;
    torch::Tensor w = random({5, 200});
    w.view({-1})[777] = std::numeric_limits<float>::infinity();
    w.view({-1})[901] = std::numeric_limits<float>::quiet_NaN();
    const std::string message = error_of([&] { quantize_4bit(w.to(gpu.device())); });
    CHECK(message == error_of([&] { quantize_4bit(w); }));
    CHECK(contains(message, "[3, 177]"));
  }

  TEST_CASE("a weight that was moved to a GPU and back is the same bytes, packed or not") {
    const TensorGpu gpu;
    const QuantizedTensor w = quantize_4bit(random({64, 128}), {.use_double_quant = true});
    for (const QuantizedTensor& from : {w, w.packed()}) {
      const QuantizedTensor there = from.to(gpu.device());
      CHECK_FALSE(there.is_packed());
      const QuantizedTensor back = there.to(torch::kCPU);
      CHECK(torch::equal(back.codes(), w.codes()));
      CHECK(torch::equal(back.absmax(), w.absmax()));
      CHECK(torch::equal(host(dequantize_4bit(there)), dequantize_4bit(w)));
    }
  }

  TEST_CASE(
      "products and all gradients are the CPU's within bfloat16, of few tokens and many, with bias "
      "and a low-rank term, whichever side is longer") {
    const TensorGpu gpu;
    for (const auto& shape :
         std::vector<std::pair<std::int64_t, std::int64_t>>{{128, 64}, {64, 192}, {72, 40}}) {
      const std::int64_t out = shape.first, in = shape.second;  // CAPTURE takes no binding in clang
      for (const std::int64_t tokens : {0, 1, 5, 70}) {
        for (const bool with_bias : {false, true}) {
          for (const std::int64_t rank : {0, 6}) {
            CAPTURE(tokens);
            CAPTURE(out);
            CAPTURE(rank);
            const Layer each = layer(out, in, with_bias, rank, /*nested=*/with_bias);
            const torch::Tensor x = random({tokens, in}, 7);
            const Gradients want = run(each, x, torch::kFloat64, torch::kCPU);
            check_close(run(each, x, torch::kBFloat16, gpu.device()), want, kHalfTolerance);
            check_close(run(each, x, torch::kFloat32, gpu.device()), want, 1e-5);
          }
        }
      }
    }
  }

  TEST_CASE("gradients are numerical derivatives along random directions") {
    const TensorGpu gpu;
    for (const std::int64_t tokens : {4, 70}) {
      const Layer each = layer(64, 128, true, 5, false);
      const torch::Tensor x = random({tokens, 128}, 13), dy = random({tokens, 64}, 99);
      const Gradients got = run(each, x, torch::kBFloat16, gpu.device());
      // Σ dy · y in float64, along `step` times a direction of one operand.
      const auto value = [&](double step, const torch::Tensor& dx, const torch::Tensor& da,
                             const torch::Tensor& db, const torch::Tensor& dbias) {
        const auto f64 = torch::kFloat64;
        const torch::Tensor moved = x.to(f64) + step * dx, a = each.term->a.to(f64) + step * da,
                            b = each.term->b.to(f64) + step * db;
        const torch::Tensor y = moved.mm(dequantize_4bit(each.w, f64).t()) + each.bias->to(f64) +
                                step * dbias + each.term->scale * moved.mm(a.t()).mm(b.t());
        return (y * dy.to(f64)).sum().item<double>();
      };
      const torch::Tensor zero = torch::zeros({1}, torch::kFloat64);
      const auto check = [&](const torch::Tensor& gradient, int which) {
        const torch::Tensor direction = random(gradient.sizes().vec(), 21).to(torch::kFloat64);
        const auto at = [&](double step) {
          return value(step, which == 0 ? direction : zero, which == 1 ? direction : zero,
                       which == 2 ? direction : zero, which == 3 ? direction : zero);
        };
        const double numerical = (at(1e-4) - at(-1e-4)) / 2e-4;
        const double analytical = (gradient.to(torch::kFloat64) * direction).sum().item<double>();
        const double size = gradient.to(torch::kFloat64).norm().item<double>();
        CHECK(std::abs(numerical - analytical) < kHalfTolerance * size);
      };
      check(got.dx, 0);
      check(got.da, 1);
      check(got.db, 2);
      check(got.dbias, 3);
    }
  }

  TEST_CASE("x of every type and shape, at odd addresses and with strides, gives its own type") {
    const TensorGpu gpu;
    const Layer each = layer(64, 128, true, 4, false);
    for (const auto dtype : {torch::kBFloat16, torch::kFloat16, torch::kFloat32, torch::kFloat64}) {
      for (const std::vector<std::int64_t>& shape :
           {std::vector<std::int64_t>{128}, {2, 3, 128}, {80, 128}}) {
        const torch::Tensor x = random(shape, 8, dtype);
        const Gradients want = run(each, x, torch::kFloat32, torch::kCPU);
        const Gradients got = run(each, x, torch::kBFloat16, gpu.device());
        CHECK((got.y.scalar_type() == dtype));
        CHECK((got.dx.scalar_type() == dtype));
        check_close(got, want, kHalfTolerance);
      }
    }
    const torch::Tensor plain = random({3, 128}, 9, torch::kBFloat16).to(gpu.device());
    const QuantizedTensor w = each.w.to(gpu.device());
    const torch::Tensor want = host(linear_4bit(plain, w));
    const torch::Tensor odd = plain.new_zeros({1 + plain.numel()}).slice(0, 1).view({3, 128});
    odd.copy_(plain);
    CHECK(torch::equal(host(linear_4bit(odd, w)), want));
    const torch::Tensor strided = plain.t().contiguous().t();
    CHECK(torch::equal(host(linear_4bit(strided, w)), want));
    QuantizedTensor::Parts parts = w.parts();
    const torch::Tensor room = parts.codes.new_zeros({1 + parts.codes.numel()});
    parts.codes = room.slice(0, 1);
    parts.codes.copy_(w.codes());
    const QuantizedTensor odd_codes = QuantizedTensor::from_parts(std::move(parts));
    CHECK(difference(host(linear_4bit(plain, odd_codes)), want) < kHalfTolerance);
  }

  TEST_CASE("a low-rank term with dropout masks alike forward and backward, on any device") {
    const TensorGpu gpu;
    for (const std::int64_t tokens : {4, 80}) {
      Layer each = layer(64, 128, false, 5, false);
      each.term->mask = [](const torch::Tensor& x) { return seeded_dropout(x, 0.25, 11); };
      const torch::Tensor x = random({tokens, 128}, 10);
      check_close(run(each, x, torch::kBFloat16, gpu.device()),
                  run(each, x, torch::kFloat32, torch::kCPU), kHalfTolerance);
    }
  }

  TEST_CASE("a recipe makes x again for the gradient of A, and x is not kept") {
    const TensorGpu gpu;
    const Layer each = layer(64, 128, false, 5, false);
    const torch::Tensor base = random({70, 128}, 12).to(gpu.device()).requires_grad_();
    int made = 0;
    LowRank term = *each.term;
    term.a = leaf(term.a, gpu.device());
    term.b = leaf(term.b, gpu.device());
    const auto make = [&](const std::vector<torch::Tensor>& inputs) {
      ++made;
      return inputs[0] * 2;
    };
    term.recipe = Recipe{{base}, make};
    const torch::Tensor x = make({base});
    linear_4bit(x, each.w.to(gpu.device()), {}, torch::kBFloat16, term).sum().backward();
    CHECK(made == 2);
    Layer plain = each;
    const torch::Tensor cpu_x = (host(base.detach()) * 2).requires_grad_();
    plain.term->a = leaf(plain.term->a, torch::kCPU);
    plain.term->b = leaf(plain.term->b, torch::kCPU);
    linear_4bit(cpu_x, plain.w, {}, torch::kFloat32, plain.term).sum().backward();
    CHECK(difference(host(term.a.grad()), plain.term->a.grad()) < kHalfTolerance);
    CHECK(difference(host(base.grad()), cpu_x.grad() * 2) < kHalfTolerance);
  }

  TEST_CASE("products copy nothing to the host, and quantizing reads what it has to") {
    const TensorGpu gpu;
    const QuantizedTensor w =
        quantize_4bit(random({128, 64}).to(gpu.device()), {.use_double_quant = true});
    for (const std::int64_t tokens : {1, 70}) {
      const torch::Tensor x =
          random({tokens, 64}, 1, torch::kBFloat16).to(gpu.device()).requires_grad_();
      LowRank term{leaf(random({4, 64}, 3), gpu.device()),
                   leaf(random({128, 4}, 4), gpu.device()),
                   1,
                   {},
                   {}};
      const torch::Tensor bias = leaf(random({128}, 5), gpu.device());
      const torch::Tensor dy = random({tokens, 128}, 6, torch::kBFloat16).to(gpu.device());
      const std::int64_t before = test::host_copies();
      linear_4bit(x, w, bias, torch::kBFloat16, term).backward(dy);
      dequantize_4bit(w);
      CHECK(test::host_copies() == before);
    }
  }

  TEST_CASE("the graph keeps codes and what the low-rank term needs, no dense weight") {
    const TensorGpu gpu;
    const std::int64_t out = 512, in = 256, tokens = 70, rank = 4;
    const QuantizedTensor w = quantize_4bit(random({out, in})).to(gpu.device());
    LowRank term{leaf(random({rank, in}, 3), gpu.device()),
                 leaf(random({out, rank}, 4), gpu.device()),
                 1,
                 {},
                 {}};
    const torch::Tensor x =
        random({tokens, in}, 1, torch::kBFloat16).to(gpu.device()).requires_grad_();
    const std::int64_t before = test::live_bytes();
    const torch::Tensor y = linear_4bit(x, w, {}, torch::kBFloat16, term);
    // y itself, u in 64 columns of bfloat16, and no matrix of 2 · out · in bytes.
    CHECK(test::live_bytes() - before <= 2 * tokens * (out + 64) + 4096);
  }

  TEST_CASE("recomputing in a checkpoint dequantizes once for the product and its gradient") {
    static int fills = 0;
    kernels::cuda::Launchers counted = *kernels::cuda::launchers();
    counted.fill_matrix = [](const kernels::cuda::LinearStack& stack, void* stream) {
      ++fills;
      return kernels::cuda::launchers()->fill_matrix(stack, stream);
    };
    const TensorGpu gpu(counted);
    const Layer each = layer(64, 128, false, 4, false);
    const QuantizedTensor w = each.w.to(gpu.device());
    LowRank term = *each.term;
    term.a = leaf(term.a, gpu.device());
    term.b = leaf(term.b, gpu.device());
    const torch::Tensor x = leaf(random({70, 128}, 7), gpu.device());
    const auto block = [&](const torch::Tensor& input) {
      return linear_4bit(input, w, {}, torch::kBFloat16, term);
    };
    fills = 0;
    block(x).sum().backward();
    CHECK(fills == 2);
    const torch::Tensor dx = x.grad().clone(), da = term.a.grad().clone();
    x.mutable_grad() = term.a.mutable_grad() = term.b.mutable_grad() = torch::Tensor();
    fills = 0;
    checkpoint(block, x, {term.a, term.b}).sum().backward();
    CHECK(fills == 2);  // one in the first forward pass, one for the second and the gradient
    CHECK(torch::equal(host(x.grad()), host(dx)));
    CHECK(torch::equal(host(term.a.grad()), host(da)));
  }

  TEST_CASE("a launch that fails names the kernel, its arguments, the device and CUDA's words") {
    kernels::cuda::Launchers failing = *kernels::cuda::launchers();
    failing.small_products = [](const kernels::cuda::SmallProductArgs*, int, void*) { return 1; };
    failing.swiglu = [](const kernels::SwiGluArgs&, void*, const kernels::cuda::GateRows&) {
      return 1;
    };
    const TensorGpu gpu(failing);
    const QuantizedTensor w = quantize_4bit(random({128, 64})).to(gpu.device());
    const std::string message = error_of([&] { linear_4bit(random({3, 64}).to(gpu.device()), w); });
    CHECK(contains(message,
                   "[linear_4bit] the kernel small_products (3 rows of 64 times 128 in blocks of "
                   "64) failed to launch on "));
    CHECK(contains(message, "invalid argument (1)"));
  }

  TEST_CASE("a GPU that kernels cannot use, or that is not there, is one message with what helps") {
    kernels::cuda::Launchers old = *kernels::cuda::launchers();
    old.find_gpus = [] {
      kernels::cuda::GpuSearch search;
      search.driver_version = search.runtime_version = 13000;
      search.gpus.push_back({"Tesla T4", 75, 40, std::int64_t{16} << 30});
      return search;
    };
    const torch::Tensor w = random({64, 64});
    torch::Tensor there;
    {
      const TensorGpu gpu(old);
      there = w.to(gpu.device());
      const std::string message = error_of([&] { quantize_4bit(there); });
      CHECK(contains(message, "which cannot be used: Tesla T4: it has compute capability 7.5"));
    }
    old.find_gpus = [] {
      kernels::cuda::GpuSearch search = kernels::cuda::launchers()->find_gpus();
      search.gpus.resize(1);
      search.error = "unknown error";
      return search;
    };
    {
      const TensorGpu gpu(old);
      CHECK_NOTHROW(quantize_4bit(there));  // the first can be used
      CHECK(contains(cuda_problem(), "CUDA cannot tell of GPU 1 (unknown error); look at"));
      CHECK(cuda_problem(0).empty());
      CHECK(contains(cuda_problem(1), "this machine has 1 GPU, numbered from 0; CUDA cannot tell"));
    }
    const lorapp::detail::ScopedGpuBackend none({there.device().type(), nullptr});
    const std::string message = error_of([&] { quantize_4bit(there); });
    CHECK(contains(message, "[quantize_4bit] a tensor is on "));
    CHECK(contains(message, "built without CUDA kernels"));
  }

  TEST_CASE("tensors on different devices, and second derivatives, are refused") {
    const TensorGpu gpu;
    const QuantizedTensor w = quantize_4bit(random({64, 64})).to(gpu.device());
    CHECK(contains(error_of([&] { linear_4bit(random({2, 64}), w); }), "x is on cpu, the weight"));
    const torch::Tensor x = random({2, 64}).to(gpu.device()).requires_grad_();
    CHECK(contains(error_of([&] { linear_4bit(x, w, random({64})); }), "bias is on cpu"));
    LowRank term{
        leaf(random({4, 64}, 3), gpu.device()), leaf(random({64, 4}, 4), gpu.device()), 1, {}, {}};
    const torch::Tensor y = linear_4bit(x, w, {}, torch::kBFloat16, term);
    CHECK(contains(error_of([&] {
                     torch::autograd::grad({y.sum()}, {x}, {}, /*retain_graph=*/true,
                                           /*create_graph=*/true);
                   }),
                   "second derivatives"));
  }
}
