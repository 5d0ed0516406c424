// 4-bit codes, scales and values against bitsandbytes.
#include "support/golden.hpp"

#include <lorapp/quant/int8_weight.hpp>
#include <lorapp/quant/ops.hpp>

#include <doctest/doctest.h>
#include <torch/types.h>

#include <string>

using namespace lorapp;
using lorapp::test::GoldenTensors;

namespace {

torch::Tensor flat(const torch::Tensor& tensor) { return tensor.reshape({-1}); }

}  // namespace

TEST_SUITE("golden codecs") {
  TEST_CASE("NF4 and FP4 codes, absmax and values are bitsandbytes' bit for bit") {
    const GoldenTensors golden("codecs.safetensors");
    int cases = 0;
    for (const QuantType type : {QuantType::nf4, QuantType::fp4}) {
      const std::string type_name(quant_type_name(type));
      for (const std::string& name : golden.names_under("")) {
        // <case>.<blocksize>.weight
        if (!name.ends_with(".weight") || name.starts_with("nested.")) continue;
        const std::string key = name.substr(0, name.size() - std::string("weight").size());
        const std::string blocksize = key.substr(key.find('.') + 1);
        CAPTURE(key);
        CAPTURE(type_name);
        const torch::Tensor weight = golden[name];
        const QuantizedTensor got =
            quantize_4bit(weight, {.quant_type = type, .blocksize = std::stol(blocksize)});
        CHECK(torch::equal(flat(got.codes()), golden[key + type_name + ".codes"]));
        CHECK(torch::equal(got.absmax(), golden[key + type_name + ".absmax"]));
        CHECK(torch::equal(got.code(), golden[type_name + ".quant_map"]));
        CHECK(torch::equal(dequantize_4bit(got), golden[key + type_name + ".values"]));
        ++cases;
      }
    }
    CHECK(cases == 30);
  }

  TEST_CASE("8-bit codes and absmax are bitsandbytes' bit for bit, values within two roundings") {
    const GoldenTensors golden("int8.safetensors");
    int cases = 0;
    for (const std::string& name : golden.names_under("")) {
      if (!name.ends_with(".weight")) continue;
      const std::string key = name.substr(0, name.size() - std::string("weight").size());
      CAPTURE(key);
      const Int8Weight got = quantize_int8(golden[name]);
      CHECK(torch::equal(got.codes, golden[key + "codes"]));
      CHECK(torch::equal(got.absmax, golden[key + "absmax"]));
      // code · absmax · (1/127) in another order: two roundings on either side.
      const torch::Tensor values = golden[key + "values"].to(torch::kFloat32);
      const torch::Tensor error = (dequantize_int8(got, torch::kFloat32) - values).abs();
      CHECK(error.le(values.abs() * 0x1p-22).all().item<bool>());
      ++cases;
    }
    CHECK(cases == 8);
  }

  TEST_CASE("bitsandbytes' double-quantized buffers dequantize to the same values bit for bit") {
    const GoldenTensors golden("codecs.safetensors");
    const torch::Tensor weight = golden["nested.weight"];
    const QuantizedTensor read =
        QuantizedTensor::from_parts({.codes = golden["nested.codes"],
                                     .absmax = golden["nested.absmax"],
                                     .code = golden["nf4.quant_map"],
                                     .nested_absmax = golden["nested.nested_absmax"],
                                     .nested_code = golden["nested.nested_quant_map"],
                                     .nested_offset = golden["nested.offset"].item<float>(),
                                     .shape = weight.sizes().vec()});
    CHECK(torch::equal(dequantize_4bit(read), golden["nested.values"]));
  }

  TEST_CASE(
      "double quantization gives bitsandbytes' first-level codes, and scales within one "
      "second-level code") {
    const GoldenTensors golden("codecs.safetensors");
    const QuantizedTensor got = quantize_4bit(golden["nested.weight"], {.use_double_quant = true});
    CHECK(torch::equal(flat(got.codes()), golden["nested.codes"]));
    CHECK(torch::allclose(got.nested_absmax(), golden["nested.nested_absmax"], 1e-6, 0));
    CHECK(torch::equal(got.nested_code(), golden["nested.nested_quant_map"]));
    CHECK_GOLDEN(got.nested_offset(), golden.scalar("nested.offset"));
    // bitsandbytes' own three ways of rounding to eight bits differ from each other by as much.
    const auto distance =
        (got.absmax().to(torch::kInt) - golden["nested.absmax"].to(torch::kInt)).abs();
    CHECK(distance.max().item<int>() <= 1);
    CHECK(distance.sum().item<int>() <= 3);
  }
}
