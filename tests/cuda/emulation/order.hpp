// The order in which the emulation's threads take turns.
#pragma once

#include <cstdint>

namespace emulation {

/// How the threads of a block take turns, warp by warp, each to its next barrier.
struct Order {
  bool descending = false;
  bool greedy = false;  // a warp goes on past its own barriers, to the block's, before the next
  bool random = false;  // lanes
  std::uint64_t seed = 0;
};
void set_order(const Order& order);

}  // namespace emulation
