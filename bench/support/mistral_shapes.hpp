// The linear weights of Mistral-7B, and what every benchmark of them shares.
// Shapes are [out_features, in_features]; random data, since zeros may run faster.
#pragma once

#include <lorapp/quant/backend.hpp>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <benchmark/benchmark.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <string>

namespace lorapp::bench {

struct Shape {
  std::int64_t out, in;
};

inline constexpr std::array<Shape, 4> kMistralShapes = {{
    {4096, 4096},   // q_proj, o_proj
    {1024, 4096},   // k_proj, v_proj
    {14336, 4096},  // gate_proj, up_proj
    {4096, 14336},  // down_proj
}};

/// Rows of x: one token, small batches, a training micro-batch.
inline constexpr std::array<std::int64_t, 4> kRows = {1, 4, 16, 256};

inline std::string name_of(Shape shape) {
  return std::to_string(shape.out) + "x" + std::to_string(shape.in);
}

/// A weight as models have them: normal, standard deviation 0.02.
inline at::Tensor random_weight(Shape shape, at::ScalarType dtype) {
  const at::Generator generator = at::detail::createCPUGenerator(1);
  return at::randn({shape.out, shape.in}, generator).mul_(0.02).to(dtype);
}

/// The main function of a benchmark program: LORAPP_BENCH_THREADS threads (default 1, so that a
/// number is that of one core), then Google Benchmark's own options.
inline int run(int argc, char** argv) {
  const char* threads = std::getenv("LORAPP_BENCH_THREADS");
  at::set_num_threads(threads != nullptr ? std::atoi(threads) : 1);
  benchmark::AddCustomContext("torch_threads", std::to_string(at::get_num_threads()));
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}

}  // namespace lorapp::bench
