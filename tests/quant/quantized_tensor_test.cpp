// QuantizedTensor: what from_parts accepts and refuses, sizes, moves.
#include <lorapp/error.hpp>
#include <lorapp/quant/ops.hpp>
#include <lorapp/quant/quantized_tensor.hpp>

#include <doctest/doctest.h>
#include <torch/types.h>

#include <limits>
#include <string>

using namespace lorapp;

namespace {

QuantizedTensor::Parts parts_of(bool nested) {
  const auto generator = at::detail::createCPUGenerator(7);
  return quantize_4bit(torch::randn({10, 33}, generator), {.use_double_quant = nested}).parts();
}

std::string message_of(QuantizedTensor::Parts parts) {
  try {
    QuantizedTensor::from_parts(std::move(parts), "model.layers.3.weight");
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

bool has(const std::string& message, const std::string& piece) {
  return message.find(piece) != std::string::npos;
}

}  // namespace

TEST_SUITE("quantized tensor") {
  TEST_CASE("its parts make the same tensor again") {
    for (const bool nested : {false, true}) {
      const QuantizedTensor::Parts parts = parts_of(nested);
      const QuantizedTensor tensor = QuantizedTensor::from_parts(parts);
      CHECK(tensor.defined());
      CHECK(tensor.is_nested() == nested);
      CHECK(tensor.numel() == 330);
      CHECK(tensor.shape() == std::vector<int64_t>{10, 33});
      CHECK(tensor.codes().numel() == 165);
      CHECK(tensor.absmax().numel() == 6);
      CHECK(torch::equal(dequantize_4bit(tensor),
                         dequantize_4bit(QuantizedTensor::from_parts(tensor.parts()))));
    }
  }

  TEST_CASE("codes may have bitsandbytes' column shape") {
    QuantizedTensor::Parts parts = parts_of(false);
    const torch::Tensor expected = dequantize_4bit(QuantizedTensor::from_parts(parts));
    parts.codes = parts.codes.unsqueeze(1);
    CHECK(torch::equal(dequantize_4bit(QuantizedTensor::from_parts(parts)), expected));
  }

  TEST_CASE("packing keeps every bit, and takes no more memory than padding to 16 rows") {
    struct Case {
      std::int64_t rows, columns, blocksize;
    };
    // Whole blocks in a row; several spans to a block; several rows to a block; few rows.
    for (const Case c : {Case{48, 256, 64}, {33, 96, 64}, {40, 64, 4096}, {1, 32, 32}}) {
      for (const bool nested : {false, true}) {
        const auto generator = at::detail::createCPUGenerator(7);
        const QuantizedTensor plain =
            quantize_4bit(torch::randn({c.rows, c.columns}, generator),
                          {.use_double_quant = nested, .blocksize = c.blocksize});
        const QuantizedTensor packed = plain.packed();
        INFO(c.rows, "x", c.columns, " blocksize ", c.blocksize, " nested ", nested);
        REQUIRE(packed.is_packed());
        CHECK_FALSE(plain.is_packed());
        CHECK(packed.is_nested() == nested);
        CHECK(torch::equal(packed.codes(), plain.codes()));
        CHECK(torch::equal(packed.absmax(), plain.absmax()));
        CHECK(torch::equal(packed.parts().codes, plain.codes()));
        CHECK(torch::equal(dequantize_4bit(packed), dequantize_4bit(plain)));
        CHECK(packed.packed().packed_codes() == packed.packed_codes());
        if (c.rows % 16 == 0 && c.columns % c.blocksize == 0) {
          CHECK(packed.nbytes() == plain.nbytes());
        }
      }
    }
  }

  TEST_CASE("what cannot be packed stays as it is") {
    const auto generator = at::detail::createCPUGenerator(7);
    const std::vector<std::int64_t> shapes[] = {{10, 33}, {16, 172}, {512}, {2, 16, 64}};
    for (const auto& shape : shapes) {
      const QuantizedTensor plain = quantize_4bit(torch::randn(shape, generator));
      CHECK_FALSE(plain.packed().is_packed());
      CHECK(plain.packed().codes().is_same(plain.codes()));
    }
  }

  TEST_CASE("nbytes is codes, scales and tables: 4.5 bits a weight, 4.127 nested") {
    const torch::Tensor w = torch::ones({256, 1024});
    const int64_t n = w.numel();
    CHECK(quantize_4bit(w).nbytes() == n / 2 + n / 64 * 4 + 64);
    CHECK(quantize_4bit(w, {.use_double_quant = true}).nbytes() ==
          n / 2 + n / 64 + n / 64 / 256 * 4 + 256 * 4 + 64);
  }

  TEST_CASE("an empty one is not defined, and using it is an Error") {
    const QuantizedTensor empty;
    CHECK(!empty.defined());
    CHECK(empty.numel() == 0);
    CHECK(empty.nbytes() == 0);
    CHECK_THROWS_AS(dequantize_4bit(empty), Error);
    CHECK_THROWS_AS(linear_4bit(torch::ones({1, 4}), empty), Error);
    CHECK_THROWS_AS(empty.to(torch::kCPU), Error);
    CHECK_THROWS_AS(empty.size(0), Error);
  }

  TEST_CASE("a copy shares the tensors, and to() the same device keeps every byte") {
    for (const bool nested : {false, true}) {
      const QuantizedTensor a = QuantizedTensor::from_parts(parts_of(nested));
      const QuantizedTensor b = a;
      CHECK(b.codes().is_same(a.codes()));
      const QuantizedTensor c = a.to(torch::kCPU);
      CHECK(torch::equal(c.codes(), a.codes()));
      CHECK(torch::equal(c.absmax(), a.absmax()));
      CHECK((c.absmax().scalar_type() == a.absmax().scalar_type()));
    }
  }

  TEST_CASE("every problem of a weight is in one message that names the weight") {
    QuantizedTensor::Parts parts = parts_of(false);
    parts.codes = parts.codes.slice(0, 0, 100);
    parts.absmax = parts.absmax.to(torch::kHalf);
    parts.code = torch::ones({8});
    const std::string message = message_of(parts);
    CHECK(has(message, "model.layers.3.weight"));
    CHECK(has(message, "3 problems"));
    CHECK(has(message, "codes is Byte with 100 elements, expected Byte with 165 elements"));
    CHECK(has(message, "absmax is Half with 6 elements, expected Float with 6 elements"));
    CHECK(has(message, "quant_map is Float with 8 elements, expected Float with 16 elements"));
  }

  TEST_CASE("each part that does not fit is refused") {
    const auto refused = [](bool nested, auto change, const std::string& piece) {
      QuantizedTensor::Parts parts = parts_of(nested);
      change(parts);
      const std::string message = message_of(parts);
      INFO(message);
      CHECK(has(message, piece));
    };
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const float infinity = std::numeric_limits<float>::infinity();
    refused(
        false, [](auto& p) { p.blocksize = 48; }, "blocksize is 48");
    refused(
        false, [](auto& p) { p.blocksize = 0; }, "blocksize is 0");
    refused(
        false, [](auto& p) { p.blocksize = 8192; }, "blocksize is 8192");
    refused(
        false, [](auto& p) { p.dtype = torch::kInt; }, "dtype is Int");
    refused(
        false, [](auto& p) { p.dtype = torch::kFloat64; }, "dtype is Double");
    refused(
        false,
        [](auto& p) {
          p.shape = {10, 34};
        },
        "codes is Byte with 165 elements, expected Byte with 170");
    refused(
        false, [](auto& p) { p.shape = {}; }, "shape is []");
    refused(
        false,
        [](auto& p) {
          p.shape = {0, 4};
        },
        "shape is [0, 4]");
    refused(
        false,
        [](auto& p) {
          p.shape = {-1, -330};
        },
        "shape is [-1, -330]");
    refused(
        false,
        [](auto& p) {
          p.shape = {int64_t{1} << 40, int64_t{1} << 40};
        },
        "shape is");
    refused(
        false, [](auto& p) { p.codes = torch::Tensor(); }, "codes are missing");
    refused(
        false, [](auto& p) { p.absmax = torch::Tensor(); }, "absmax is nothing");
    refused(
        false,
        [&](auto& p) {
          p.absmax = p.absmax.clone();
          p.absmax[2] = nan;
        },
        "absmax[2] is nan");
    refused(
        false,
        [&](auto& p) {
          p.absmax = p.absmax.clone();
          p.absmax[5] = -infinity;
        },
        "absmax[5] is -inf");
    refused(
        false,
        [&](auto& p) {
          p.code = p.code.clone();
          p.code[9] = nan;
        },
        "quant_map[9] is nan");
    refused(
        false, [](auto& p) { p.nested_offset = 1.0f; }, "nested_absmax is nothing");
    refused(
        true, [](auto& p) { p.nested_offset.reset(); }, "nested_offset is missing");
    refused(
        true, [&](auto& p) { p.nested_offset = nan; }, "nested_offset is nan");
    refused(
        true, [&](auto& p) { p.nested_absmax = torch::full({1}, infinity); },
        "nested_absmax[0] is inf");
    refused(
        true,
        [&](auto& p) {
          p.nested_code = p.nested_code.clone();
          p.nested_code[255] = nan;
        },
        "nested_quant_map[255] is nan");
    refused(
        true,
        [&](auto& p) {
          p.nested_absmax = torch::full({1}, 3e38f);
          p.nested_offset = 1e38f;
        },
        "expected scales that float32 holds");
    refused(
        true, [](auto& p) { p.nested_code = torch::Tensor(); }, "nested_quant_map is nothing");
    refused(
        true, [](auto& p) { p.nested_absmax = torch::ones({7}); },
        "nested_absmax is Float with 7 elements");
    refused(
        true, [](auto& p) { p.nested_blocksize = 0; }, "nested_blocksize is 0");
    refused(
        true, [](auto& p) { p.absmax = p.absmax.to(torch::kFloat32); },
        "absmax is Float with 6 elements, expected Byte");
    refused(
        true, [](auto& p) { p.nested_code = p.nested_code.to(torch::kMeta); },
        "nested_quant_map is on meta");
  }
}
