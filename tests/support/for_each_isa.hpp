// for_each_isa: runs a test's body once for every instruction set that this machine has.
// Name the body's checks freely: a failure says which set was in use.
#pragma once

#include <lorapp/quant/backend.hpp>

#include <doctest/doctest.h>

#include <string>

namespace lorapp::test {

template <class F>
void for_each_isa(F body) {
  for (const std::string& isa : available_isas()) {
    INFO("instruction set: ", isa);
    const ScopedIsa scope(isa);
    body(isa);
  }
}

}  // namespace lorapp::test
