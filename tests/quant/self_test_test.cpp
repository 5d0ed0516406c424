// The comparison of kernels with the scalar rule before their first use.
#include "quant/self_test.hpp"

#include "kernels/dispatch.hpp"
#include "kernels/product_args.hpp"
#include "support/error_of.hpp"

#include <lorapp/error.hpp>

#include <doctest/doctest.h>

using namespace lorapp;
using lorapp::detail::check_products;

namespace {

const kernels::KernelTable* honest = nullptr;

// One element of the result is off by a little more than rounding.
void wrong_product(const kernels::ProductArgs& args) {
  honest->product(args);
  float& element = static_cast<float*>(args.y)[args.y_stride + args.end - 1];
  element += 0.05f;
}

void lazy_vector_product(const kernels::VectorProductArgs& args) {
  kernels::VectorProductArgs fewer = args;
  fewer.end -= 1;
  honest->vector_product(fewer);
}

}  // namespace

TEST_SUITE("self test") {
  TEST_CASE("every table that can run here passes") {
    for (const kernels::KernelTable& table : kernels::compiled_tables()) {
      if (kernels::can_run(table)) CHECK_NOTHROW(check_products(table));
    }
  }

  TEST_CASE("one wrong element is an Error that names the table and the way out") {
    honest = kernels::active_table();
    kernels::KernelTable table = *honest;
    table.name = "crooked";
    table.product = &wrong_product;
    const std::string message = test::error_of([&] { check_products(table); });
    CHECK(message.find("crooked") != std::string::npos);
    CHECK(message.find("LORAPP_FORCE_ISA") != std::string::npos);
  }

  TEST_CASE("a row that is left out is an Error") {
    honest = kernels::active_table();
    kernels::KernelTable table = *honest;
    table.vector_product = &lazy_vector_product;
    CHECK(test::error_of([&] { check_products(table); }).find("vector") != std::string::npos);
  }
}
