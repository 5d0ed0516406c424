// Operands of the tests of products, and how far results are from each other.
#pragma once

#include <doctest/doctest.h>
#include <torch/types.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace lorapp::test {

inline torch::Tensor random(const std::vector<int64_t>& shape,
                            std::uint64_t seed = 1,
                            torch::Dtype dtype = torch::kFloat) {
  return torch::randn(shape, at::detail::createCPUGenerator(seed)).to(dtype);
}

/// ‖got − want‖ / ‖want‖; of undefined tensors none.
inline double difference(const torch::Tensor& got, const torch::Tensor& want) {
  if (!want.defined()) return got.defined() ? 1 : 0;
  REQUIRE(got.sizes() == want.sizes());
  const double scale = want.to(torch::kFloat64).norm().item<double>();
  return (got.to(torch::kFloat64) - want.to(torch::kFloat64)).norm().item<double>() /
         std::max(scale, 1e-30);
}

}  // namespace lorapp::test
