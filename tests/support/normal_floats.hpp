// Normally distributed floats, the same for a seed every time.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

namespace lorapp::test {

inline std::vector<float> normal_floats(std::int64_t count, unsigned seed, float scale = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> distribution(0, scale);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = distribution(random);
  return values;
}

}  // namespace lorapp::test
