// quantize_4bit and dequantize_4bit on tensors: values, dtypes, layouts, tables of files, bad
// input. The bytes themselves are checked in tests/kernels; here each door is.
#include <lorapp/error.hpp>
#include <lorapp/quant/backend.hpp>
#include <lorapp/quant/fp4.hpp>
#include <lorapp/quant/ops.hpp>

#include <ATen/Parallel.h>
#include <doctest/doctest.h>
#include <torch/types.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "support/for_each_isa.hpp"

using namespace lorapp;

namespace {

torch::Tensor random(std::vector<int64_t> shape, int64_t seed = 1) {
  return torch::randn(shape, at::detail::createCPUGenerator(seed));
}

// The definition, in tensor operations: f32 throughout, one rounding at the end.
torch::Tensor dequantized_by_hand(const QuantizedTensor& q) {
  const int64_t n = q.numel();
  const torch::Tensor codes = q.codes().to(torch::kLong);
  const torch::Tensor nibbles =
      torch::stack({codes.div(16, "floor"), codes.remainder(16)}, 1).reshape({-1}).slice(0, 0, n);
  torch::Tensor absmax = q.absmax();
  if (q.is_nested()) {
    const torch::Tensor scale =
        q.nested_absmax().repeat_interleave(q.nested_blocksize()).slice(0, 0, absmax.numel());
    absmax = q.nested_code().index({absmax.to(torch::kLong)}) * scale + q.nested_offset();
  }
  const torch::Tensor scale = absmax.repeat_interleave(q.blocksize()).slice(0, 0, n);
  return (q.code().index({nibbles}) * scale).to(q.dtype()).reshape(q.shape());
}

const std::vector<std::vector<int64_t>> kShapes = {{1},     {2},      {65},       {3, 5},
                                                   {8, 48}, {64, 64}, {7, 4, 33}, {129, 257}};

}  // namespace

TEST_SUITE("quant ops") {
  TEST_CASE(
      "dequantizing is code times absmax, rounded once, for every type, shape and block size") {
    test::for_each_isa([](const std::string&) {
      for (const auto& shape : kShapes) {
        for (const auto dtype : {torch::kFloat32, torch::kBFloat16, torch::kHalf}) {
          for (const QuantType type : {QuantType::nf4, QuantType::fp4}) {
            for (const bool nested : {false, true}) {
              for (const int64_t blocksize : {32, 64, 4096}) {
                const QuantizedTensor q = quantize_4bit(
                    random(shape).to(dtype),
                    {.quant_type = type, .use_double_quant = nested, .blocksize = blocksize});
                CHECK((q.dtype() == dtype));
                CHECK(q.shape() == shape);
                const torch::Tensor dense = dequantize_4bit(q);
                CHECK((dense.scalar_type() == dtype));
                REQUIRE(torch::equal(dense, dequantized_by_hand(q)));
              }
            }
          }
        }
      }
    });
  }

  TEST_CASE("another output dtype is the value rounded to the weight's dtype, then converted") {
    test::for_each_isa([](const std::string&) {
      for (const auto dtype : {torch::kFloat32, torch::kBFloat16, torch::kHalf}) {
        const QuantizedTensor q = quantize_4bit((random({33, 70}) * 3).to(dtype));
        for (const auto out : {torch::kFloat32, torch::kBFloat16, torch::kHalf, torch::kFloat64}) {
          const torch::Tensor got = dequantize_4bit(q, out);
          CHECK((got.scalar_type() == out));
          REQUIRE(torch::equal(got, dequantize_4bit(q).to(out)));
        }
      }
    });
  }

  TEST_CASE("quantizing what was dequantized gives the same codes") {
    for (const QuantType type : {QuantType::nf4, QuantType::fp4}) {
      const QuantizedTensor q = quantize_4bit(random({64, 96}), {.quant_type = type});
      const QuantizedTensor again = quantize_4bit(dequantize_4bit(q), {.quant_type = type});
      CHECK(torch::equal(dequantize_4bit(again), dequantize_4bit(q)));
      CHECK(torch::equal(again.absmax(), q.absmax()));
    }
  }

  TEST_CASE("the error of a weight is at most half the widest gap of its block's values") {
    const torch::Tensor w = random({128, 128});
    const QuantizedTensor q = quantize_4bit(w);
    const torch::Tensor absmax = q.absmax().repeat_interleave(64).reshape(w.sizes());
    // NF4's widest gap is from -1 to -0.696.
    CHECK(((dequantize_4bit(q) - w).abs() / absmax).max().item<float>() <= 0.1520f);
  }

  TEST_CASE("blocks are cut from the flat weight and straddle rows") {
    // Rows of 48 in blocks of 64: the second row's first 16 weights share the first block.
    torch::Tensor w = torch::full({4, 48}, 0.01f);
    w[1][15] = 8.0f;
    const QuantizedTensor q = quantize_4bit(w);
    CHECK(q.absmax().numel() == 3);
    CHECK(q.absmax()[0].item<float>() == 8.0f);
    CHECK(q.absmax()[1].item<float>() == 0.01f);
  }

  TEST_CASE("a non-contiguous weight is quantized as its contiguous copy") {
    const torch::Tensor w = random({70, 33});
    const torch::Tensor views[] = {w.t(), w.slice(1, 3, 30), w.slice(0, 0, 70, 2), w.select(1, 4),
                                   torch::ones({1}).expand({5, 40})};
    for (const torch::Tensor& view : views) {
      CHECK(torch::equal(quantize_4bit(view).codes(), quantize_4bit(view.contiguous()).codes()));
      CHECK(torch::equal(quantize_4bit(view).absmax(), quantize_4bit(view.contiguous()).absmax()));
    }
  }

  TEST_CASE("the bytes do not depend on the instruction set or on the number of threads") {
    const torch::Tensor w = random({300, 1111}).to(torch::kBFloat16);
    const QuantConfig config{.use_double_quant = true};
    const QuantizedTensor reference = quantize_4bit(w, config);
    const int threads = at::get_num_threads();
    test::for_each_isa([&](const std::string&) {
      for (const int count : {1, 2}) {
        at::set_num_threads(count);
        const QuantizedTensor q = quantize_4bit(w, config);
        CHECK(torch::equal(q.codes(), reference.codes()));
        CHECK(torch::equal(q.absmax(), reference.absmax()));
        CHECK(torch::equal(q.nested_absmax(), reference.nested_absmax()));
        CHECK(q.nested_offset() == reference.nested_offset());
        CHECK(torch::equal(dequantize_4bit(q), dequantize_4bit(reference)));
      }
    });
    at::set_num_threads(threads);
  }

  TEST_CASE("double quantization: the offset is the mean, zero spread is exact") {
    const torch::Tensor w = random({64, 640});
    const QuantizedTensor plain = quantize_4bit(w),
                          nested = quantize_4bit(w, {.use_double_quant = true});
    CHECK(torch::equal(plain.codes(), nested.codes()));
    CHECK(nested.nested_offset() ==
          static_cast<float>(plain.absmax().to(torch::kFloat64).mean().item<double>()));
    CHECK(nested.nested_absmax().numel() == 3);  // 640 blocks
    const torch::Tensor relative = (dequantize_4bit(nested) - dequantize_4bit(plain)).abs() /
                                   dequantize_4bit(plain).abs().clamp_min(1e-6);
    CHECK(relative.max().item<float>() < 0.02f);

    const QuantizedTensor constant =
        quantize_4bit(torch::full({4, 64}, -2.5f), {.use_double_quant = true});
    CHECK(torch::equal(dequantize_4bit(constant), torch::full({4, 64}, -2.5f)));
    const QuantizedTensor zero = quantize_4bit(torch::zeros({4, 64}), {.use_double_quant = true});
    CHECK(torch::equal(dequantize_4bit(zero), torch::zeros({4, 64})));
  }

  TEST_CASE("the tables of a file are used as they are") {
    QuantizedTensor::Parts parts =
        quantize_4bit(random({64, 640}), {.use_double_quant = true}).parts();
    parts.code = parts.code * 1.25f + 0.01f;
    parts.nested_code = parts.nested_code.flip(0);
    parts.nested_blocksize = 100;
    parts.nested_absmax = torch::rand({7}, at::detail::createCPUGenerator(3));
    const QuantizedTensor q = QuantizedTensor::from_parts(parts);
    test::for_each_isa([&](const std::string&) {
      CHECK(torch::equal(dequantize_4bit(q), dequantized_by_hand(q)));
    });
  }

  TEST_CASE("a weight that requires a gradient is quantized by value") {
    const torch::Tensor w = random({4, 64}).requires_grad_();
    const QuantizedTensor q = quantize_4bit(w);
    CHECK(!dequantize_4bit(q).requires_grad());
    CHECK(torch::equal(q.codes(), quantize_4bit(w.detach()).codes()));
  }

  TEST_CASE("a weight that is not finite is an Error that names its position") {
    const float inf = std::numeric_limits<float>::infinity();
    test::for_each_isa([&](const std::string&) {
      for (const auto dtype : {torch::kFloat32, torch::kBFloat16, torch::kHalf}) {
        torch::Tensor w = random({600, 1000}).to(dtype);
        w[599][999] = inf;
        w[417][31] = std::nan("");
        CHECK_THROWS_WITH_AS(quantize_4bit(w),
                             doctest::Contains("weight at [417, 31] of [600, 1000] is nan"), Error);
        w[0][0] = -inf;
        CHECK_THROWS_WITH_AS(quantize_4bit(w),
                             doctest::Contains("weight at [0, 0] of [600, 1000] is -inf"), Error);
      }
    });
    torch::Tensor transposed = random({5, 40}).t();
    transposed[3][2] = inf;
    CHECK_THROWS_WITH_AS(quantize_4bit(transposed), doctest::Contains("[3, 2] of [40, 5]"), Error);
  }

  TEST_CASE("what cannot be quantized is an Error that says what was expected") {
    const torch::Tensor w = random({4, 64});
    CHECK_THROWS_WITH_AS(quantize_4bit(torch::Tensor()), doctest::Contains("undefined"), Error);
    CHECK_THROWS_WITH_AS(quantize_4bit(torch::ones({2, 32}).to_sparse()),
                         doctest::Contains("expected a dense tensor"), Error);
    CHECK_THROWS_WITH_AS(quantize_4bit(w.to(torch::kInt)), doctest::Contains("the weight is Int"),
                         Error);
    CHECK_THROWS_WITH_AS(quantize_4bit(w.to(torch::kFloat64)),
                         doctest::Contains("the weight is Double"), Error);
    CHECK_THROWS_WITH_AS(quantize_4bit(torch::empty({0, 4})), doctest::Contains("shape [0, 4]"),
                         Error);
    CHECK_THROWS_WITH_AS(quantize_4bit(torch::tensor(1.0f)), doctest::Contains("shape []"), Error);
    for (const int64_t blocksize : {0, -64, 16, 48, 65, 8192}) {
      CHECK_THROWS_WITH_AS(quantize_4bit(w, {.blocksize = blocksize}),
                           doctest::Contains("blocksize is"), Error);
    }
    CHECK_THROWS_WITH_AS(quantize_4bit(w.to(torch::kMeta)), doctest::Contains("is on meta"), Error);
    CHECK_THROWS_WITH_AS(dequantize_4bit(quantize_4bit(w), torch::kInt),
                         doctest::Contains("output dtype is Int"), Error);
  }

  TEST_CASE("a CUDA tensor in a build without CUDA kernels is an Error that says so") {
    if (cuda_available()) return;
    // A tensor that claims to be on a GPU; its memory is never touched.
    static float memory[64];
    const at::Device gpu(at::kCUDA, 0);
    c10::Storage storage(c10::Storage::use_byte_size_t(), sizeof memory, c10::DataPtr(memory, gpu));
    const torch::Tensor w = at::detail::make_tensor<c10::TensorImpl>(
        std::move(storage), c10::DispatchKeySet(c10::DispatchKey::CUDA),
        caffe2::TypeMeta::Make<float>());
    w.unsafeGetTensorImpl()->set_sizes_contiguous({64});
    CHECK_THROWS_WITH_AS(quantize_4bit(w), doctest::Contains("built without CUDA kernels"), Error);
  }
}
