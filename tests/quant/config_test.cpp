// QuantConfig: defaults, names, the automatic compute dtype.
#include "kernels/cpu_features.hpp"
#include "kernels/table.hpp"

#include <lorapp/error.hpp>
#include <lorapp/quant/config.hpp>

#include <doctest/doctest.h>

#include <sstream>

using namespace lorapp;

TEST_SUITE("quant config") {
  TEST_CASE("the defaults are NF4 in blocks of 64, single quantization, a dense lm_head") {
    const QuantConfig config;
    CHECK(config.quant_type == QuantType::nf4);
    CHECK(!config.compute_dtype.has_value());
    CHECK(!config.use_double_quant);
    CHECK(config.blocksize == 64);
    CHECK(config.skip_modules == std::vector<std::string>{"lm_head"});
    CHECK(config == QuantConfig{});
    CHECK(config != QuantConfig{.use_double_quant = true});
  }

  TEST_CASE("type names go both ways, and another name is an Error that says what is accepted") {
    for (const QuantType type : {QuantType::nf4, QuantType::fp4}) {
      CHECK(parse_quant_type(quant_type_name(type)) == type);
    }
    std::ostringstream text;
    text << QuantType::fp4;
    CHECK(text.str() == "fp4");
    CHECK_THROWS_WITH_AS(parse_quant_type("int8"),
                         "[quant_config] quant_type is \"int8\", expected nf4 or fp4", Error);
    CHECK_THROWS_AS(parse_quant_type("NF4"), Error);
    CHECK_THROWS_AS(parse_quant_type(""), Error);
  }

  TEST_CASE("a requested compute dtype is kept, an impossible one is an Error") {
    for (const auto dtype : {torch::kFloat32, torch::kBFloat16, torch::kHalf, torch::kFloat64}) {
      CHECK((resolve_compute_dtype(dtype, torch::kCPU) == dtype));
    }
    CHECK_THROWS_WITH_AS(resolve_compute_dtype(torch::kInt, torch::kCPU),
                         doctest::Contains("compute_dtype is Int"), Error);
    CHECK_THROWS_AS(resolve_compute_dtype(torch::kFloat8_e4m3fn, torch::kCPU), Error);
  }

  TEST_CASE("auto is bfloat16 exactly where the device multiplies it natively") {
    const bool native = (kernels::cpu_features() & (kernels::kAvx512bf16 | kernels::kAmxBf16)) != 0;
    CHECK(
        (resolve_compute_dtype({}, torch::kCPU) == (native ? torch::kBFloat16 : torch::kFloat32)));
    CHECK((resolve_compute_dtype({}, torch::kCUDA) == torch::kBFloat16));
  }
}
