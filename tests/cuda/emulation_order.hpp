// for_each_order: runs a test's body with the threads of a block in several orders. Results that
// differ between them miss a barrier.
#pragma once

#include "cuda/emulation/order.hpp"

#include <doctest/doctest.h>

namespace lorapp::test {

template <class F>
void for_each_order(F body) {
  using emulation::Order;
  for (const Order& order :
       {Order{}, Order{.descending = true}, Order{.greedy = true},
        Order{.descending = true, .greedy = true}, Order{.random = true, .seed = 12345}}) {
    INFO("descending ", order.descending, ", greedy ", order.greedy, ", random ", order.random);
    emulation::set_order(order);
    body();
  }
  emulation::set_order({});
}

}  // namespace lorapp::test
