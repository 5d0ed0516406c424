// What a CUDA graph captures: products and row operations, which would break the capture if they
// waited, and another stream than the default one.
#include "cuda/tensor_gpu.hpp"
#include "quant/operands.hpp"

#include <lorapp/nn/mlp.hpp>
#include <lorapp/nn/rms_norm.hpp>
#include <lorapp/quant/ops.hpp>

#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <doctest/doctest.h>
#include <torch/types.h>

#include <optional>

using namespace lorapp;
using test::random;
using test::TensorGpu;

TEST_SUITE("CUDA graphs") {
  TEST_CASE("products of few rows and many, and row operations, are captured and replayed") {
    const TensorGpu gpu;
    const auto device = gpu.device();
    const QuantizedTensor w =
        quantize_4bit(random({128, 64}).to(device), {.use_double_quant = true});
    const LowRank term{random({4, 64}, 3).to(device), random({128, 4}, 4).to(device), 1, {}, {}};
    const torch::Tensor weight = random({64}, 5, torch::kBFloat16).to(device);
    const QuantizedTensor down = quantize_4bit(random({64, 128}, 6).to(device));
    for (const std::int64_t tokens : {1, 200}) {
      const torch::Tensor x = random({tokens, 64}, 1, torch::kBFloat16).to(device);
      const auto f = [&] {
        const auto both = stacked_linear_4bit(rms_norm(x, weight, 1e-5),
                                              {{w, std::nullopt, term}, {w}}, torch::kBFloat16);
        const torch::Tensor y =
            swiglu(both[0], both[1]) + dequantize_4bit(down, x.scalar_type())[0];
        return stacked_linear_4bit(y, {{down, std::nullopt, std::nullopt, x}}, x.scalar_type())
            .front();
      };
      const torch::NoGradGuard no_grad;
      const c10::cuda::CUDAStream stream = c10::cuda::getStreamFromPool();
      const c10::cuda::CUDAStreamGuard guard(stream);
      f();  // cuBLASLt chooses, kernels are loaded
      stream.synchronize();
      at::cuda::CUDAGraph graph;
      graph.capture_begin();
      const torch::Tensor y = f();
      graph.capture_end();
      x.copy_(random({tokens, 64}, 2, torch::kBFloat16));
      graph.replay();
      stream.synchronize();
      const torch::Tensor replayed = y.clone();
      CHECK(torch::equal(replayed.cpu(), f().cpu()));
    }
  }

  TEST_CASE("work follows what LibTorch has put on another stream") {
    const TensorGpu gpu;
    const QuantizedTensor w = quantize_4bit(random({256, 256})).to(gpu.device());
    const torch::Tensor x = random({64, 256}, 1, torch::kBFloat16);
    const torch::Tensor want = linear_4bit(x.to(gpu.device()), w).cpu();
    const c10::cuda::CUDAStream stream = c10::cuda::getStreamFromPool();
    const c10::cuda::CUDAStreamGuard guard(stream);
    torch::Tensor late = torch::zeros({64, 256}, torch::kBFloat16).to(gpu.device());
    torch::Tensor busy = random({4096, 4096}).to(gpu.device());
    for (int i = 0; i < 20; ++i) busy = busy.mm(busy).mul_(1e-3);  // the copy below has to wait
    late.copy_(x.to(gpu.device()) + busy.slice(0, 0, 64).slice(1, 0, 256).mul(0).nan_to_num());
    CHECK(torch::equal(linear_4bit(late, w).cpu(), want));
  }
}
