// AdamW with moments in 8 bits, and rows of a cache, on a GPU (tensor_gpu.hpp).
#include "cuda/tensor_gpu.hpp"
#include "quant/operands.hpp"
#include "support/temporary_folder.hpp"

#include <lorapp/nn/rotary.hpp>
#include <lorapp/train/adamw.hpp>

#include <doctest/doctest.h>
#include <torch/types.h>

#include <string>

using namespace lorapp;
using test::random;
using test::TensorGpu;

TEST_SUITE("optimizer and cache on a GPU") {
  TEST_CASE("in 8 bits parameters and states are the CPU's bits, and go on from either's file") {
    const TensorGpu gpu;
    const test::TemporaryFolder folder;
    for (const auto dtype : {torch::kFloat32, torch::kBFloat16}) {
      const auto run = [&](const torch::Device& device, const char* from, const char* to) {
        torch::Tensor p = random({70, 67}, 1, dtype).to(device).requires_grad_();
        AdamW optimizer({{"a.weight", p}}, {.weight_decay = 0.1, .state_bits = 8});
        if (*from != '\0') optimizer.load(folder / from);
        for (unsigned step = 0; step < 3; ++step) {
          optimizer.zero_grad();
          (p * random({70, 67}, 2 + step, dtype).to(device)).sum().backward();
          optimizer.accumulate();
          optimizer.step(1e-2, 0.5);
        }
        optimizer.save(folder / to);
        return p.detach().to(torch::kCPU);
      };
      CHECK(torch::equal(run(gpu.device(), "", "gpu"), run(torch::kCPU, "", "cpu")));
      CHECK(test::read_file(folder / "gpu") == test::read_file(folder / "cpu"));
      CHECK(torch::equal(run(gpu.device(), "cpu", "gpu on"), run(torch::kCPU, "gpu", "cpu on")));
    }
  }

  TEST_CASE("keys are turned into rows of a cache on the GPU") {
    const TensorGpu gpu;
    const torch::Tensor x = random({3, 2, 16}, 1, torch::kBFloat16).to(gpu.device());
    RotaryEmbedding rotary(16, 10000.0);
    const Rotation here = rotary.at(torch::arange(3), torch::kBFloat16);
    const Rotation there{here.cos.to(gpu.device()), here.sin.to(gpu.device())};
    const torch::Tensor cache = torch::zeros({2, 8, 16}, x.options());
    rotate_into(cache.slice(1, 4, 7).transpose(0, 1), x, there);
    CHECK(torch::equal(cache.to(torch::kCPU).slice(1, 4, 7).transpose(0, 1),
                       rotate(x.to(torch::kCPU), here)));
  }
}
