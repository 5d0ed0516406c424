// Names of element types.
#include "io/dtypes.hpp"

#include <lorapp/error.hpp>
#include <lorapp/io/dtype.hpp>

#include "raw_safetensors.hpp"
#include "support/error_of.hpp"

#include <doctest/doctest.h>

#include <string>

using namespace lorapp;
using lorapp::test::contains;
using lorapp::test::error_of;

TEST_SUITE("dtype") {
  TEST_CASE(
      "every safetensors type with a LibTorch type keeps its name there and back, and its size") {
    int usable = 0;
    for (const auto& dtype : lorapp::detail::kSafetensorsDtypes) {
      if (!dtype.torch) continue;
      const std::string name(dtype.name);
      CAPTURE(name);
      ++usable;
      CHECK((parse_safetensors_dtype(name) == *dtype.torch));
      CHECK(safetensors_dtype_name(*dtype.torch) == name);
      CHECK(c10::elementSize(*dtype.torch) * 8 == static_cast<std::size_t>(dtype.bits));
    }
    CHECK(usable == 19);
  }

  TEST_CASE("a packed, an unknown and a mis-spelled name are errors that say so") {
    CHECK(contains(error_of([] { parse_safetensors_dtype("F4"); }), "elements of 4 bits"));
    CHECK(contains(error_of([] { parse_safetensors_dtype("bf16"); }),
                   "'bf16' is no safetensors type"));
    CHECK_THROWS_AS(safetensors_dtype_name(c10::ScalarType::QInt8), Error);
    CHECK(contains(error_of([] { parse_hf_dtype("BF16"); }),
                   "expected one of float32, bfloat16, float16"));
    CHECK_THROWS_AS(parse_hf_dtype(""), Error);
    CHECK_THROWS_AS(parse_hf_dtype("torch."), Error);
    CHECK_THROWS_AS(hf_dtype_name(c10::ScalarType::QInt8), Error);
  }

  TEST_CASE("Hugging Face names are read with and without torch. and written without") {
    CHECK((parse_hf_dtype("bfloat16") == c10::ScalarType::BFloat16));
    CHECK((parse_hf_dtype("torch.float16") == c10::ScalarType::Half));
    CHECK(hf_dtype_name(c10::ScalarType::Float) == "float32");
    CHECK(hf_dtype_name(parse_hf_dtype("torch.float64")) == "float64");
  }
}
