// The comparison of kernels with the scalar rule before their first use.
#include "quant/self_test.hpp"

#include "kernels/attention_args.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/product_args.hpp"
#include "kernels/rows_args.hpp"
#include "support/error_of.hpp"

#include <lorapp/error.hpp>
#include <lorapp/quant/ops.hpp>

#include <doctest/doctest.h>
#include <torch/types.h>

#include <string>
#include <vector>

using namespace lorapp;
using lorapp::detail::check_products;
using lorapp::detail::check_rows;

namespace {

const kernels::KernelTable* honest = nullptr;

// One element of the result is off by a little more than rounding.
void wrong_product(const kernels::ProductArgs& args) {
  honest->product(args);
  float& element = static_cast<float*>(args.y)[args.y_stride + args.end - 1];
  element += 0.05f;
}

// Codes in 8 bits as if all rows had the scale of the first.
void one_scale(const kernels::ProductArgs& args) {
  if (args.dense == nullptr || args.dense->absmax == nullptr) return honest->product(args);
  const std::vector<float> scales(static_cast<std::size_t>(args.dense->rows),
                                  args.dense->absmax[0]);
  kernels::DenseMatrix matrix = *args.dense;
  matrix.absmax = scales.data();
  kernels::ProductArgs wrong = args;
  wrong.dense = &matrix;
  honest->product(wrong);
}

void lazy_vector_product(const kernels::VectorProductArgs& args) {
  kernels::VectorProductArgs fewer = args;
  fewer.end -= 1;
  honest->vector_product(fewer);
}

void wrong_swiglu(const kernels::SwiGluArgs& args) {
  honest->swiglu(args);
  if (args.type == kernels::Float::bf16)
    static_cast<std::uint16_t*>(args.y)[args.n - 1] = 0x4000;  // 2
}

void wrong_decode(const kernels::AttentionDecodeArgs& args) {
  honest->attention_decode(args);
  args.out[args.group.heads * args.group.head_size - 1] *= 1.001f;
}

}  // namespace

TEST_SUITE("self test") {
  TEST_CASE("every table that can run here passes") {
    for (const kernels::KernelTable& table : kernels::compiled_tables()) {
      if (!kernels::can_run(table)) continue;
      CHECK_NOTHROW(check_products(table));
      CHECK_NOTHROW(check_rows(table));
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

  TEST_CASE("a wrong table in use is an Error at the first operation, and at those after it") {
    honest = kernels::active_table();
    kernels::KernelTable table = *honest;
    table.name = "crooked";
    table.product = &wrong_product;
    const auto quantize = [] { quantize_4bit(torch::ones({2, 32})); };
    const kernels::KernelTable* before = kernels::set_active_table(&table);
    const std::string first = test::error_of(quantize), second = test::error_of(quantize);
    kernels::set_active_table(before);
    CHECK(first.find("crooked") != std::string::npos);
    CHECK(second == first);
    CHECK_NOTHROW(quantize());
  }

  TEST_CASE("a wrong element of another kernel is an Error that names the kernel") {
    honest = kernels::active_table();
    kernels::KernelTable table = *honest;
    table.swiglu = &wrong_swiglu;
    CHECK(test::error_of([&] { check_rows(table); }).find("kernel swiglu") != std::string::npos);
    table = *honest;
    table.attention_decode = &wrong_decode;
    CHECK(test::error_of([&] { check_rows(table); }).find("attention_decode") != std::string::npos);
  }

  TEST_CASE("a wrong product with codes in 8 bits is an Error") {
    honest = kernels::active_table();
    kernels::KernelTable table = *honest;
    table.product = &one_scale;
    CHECK(test::error_of([&] { check_products(table); }).find("forward") != std::string::npos);
  }

  TEST_CASE("a row that is left out is an Error") {
    honest = kernels::active_table();
    kernels::KernelTable table = *honest;
    table.vector_product = &lazy_vector_product;
    CHECK(test::error_of([&] { check_products(table); }).find("vector") != std::string::npos);
  }
}
