// GGUF: the bytes of element types, and the file around them.
#include "io/gguf_writer.hpp"

#include "support/error_of.hpp"
#include "support/gguf_file.hpp"
#include "support/temporary_folder.hpp"

#include <lorapp/error.hpp>
#include <lorapp/io/gguf.hpp>

#include <doctest/doctest.h>
#include <torch/types.h>

#include <cmath>
#include <limits>
#include <string>

using namespace lorapp;
using namespace lorapp::test;

namespace {

torch::Tensor random_rows(std::int64_t rows, std::int64_t columns) {
  torch::manual_seed(3);
  return torch::randn({rows, columns});
}

}  // namespace

TEST_SUITE_BEGIN("io");

TEST_CASE("gguf: f16 and bf16 round each number once, q8_0 to 1/254 of its block's largest") {
  const torch::Tensor values = random_rows(6, 64);
  for (const auto& [type, dtype] :
       {std::pair(GgufType::f16, torch::kFloat16), std::pair(GgufType::bf16, torch::kBFloat16)}) {
    const torch::Tensor bytes = gguf_encode(values, type);
    CHECK(bytes.numel() == gguf_bytes({6, 64}, type));
    CHECK(torch::equal(gguf_decode(bytes, {6, 64}, type), values.to(dtype).to(torch::kFloat32)));
  }
  CHECK(torch::equal(gguf_decode(gguf_encode(values, GgufType::f32), {6, 64}, GgufType::f32),
                     values));
  const torch::Tensor bytes = gguf_encode(values, GgufType::q8_0);
  CHECK(bytes.numel() == 6 * 2 * 34);
  const torch::Tensor error = (gguf_decode(bytes, {6, 64}, GgufType::q8_0) - values).view({12, 32});
  const torch::Tensor largest = std::get<0>(values.view({12, 32}).abs().max(1, true));
  // Half a step, and what rounding the scale to 11 bits adds to 127 steps.
  CHECK((error.abs() / largest).max().item<double>() < 1.0 / 254 + 1.0 / 2048);
  CHECK((error.abs() / largest).max().item<double>() > 1.0 / 600);
}

TEST_CASE("gguf: a q8_0 block is a float16 scale and 32 codes, halves rounded away from zero") {
  torch::Tensor block = torch::zeros({1, 32});
  block[0][0] = 127.0f;
  block[0][1] = 2.5f;
  block[0][2] = -2.5f;
  block[0][3] = -127.0f;
  block[0][4] = 0.25f;
  const torch::Tensor bytes = gguf_encode(block, GgufType::q8_0);
  const auto* data = bytes.const_data_ptr<std::uint8_t>();
  CHECK(data[0] == 0x00);  // 1.0 in float16, little-endian
  CHECK(data[1] == 0x3c);
  const int want[] = {127, 3, -3, -127, 0};
  for (int i = 0; i < 5; ++i) CHECK(static_cast<std::int8_t>(data[2 + i]) == want[i]);
  const torch::Tensor zeros = torch::zeros({2, 32});
  CHECK(torch::equal(gguf_decode(gguf_encode(zeros, GgufType::q8_0), {2, 32}, GgufType::q8_0),
                     zeros));
}

TEST_CASE("gguf: what a type cannot hold is an error") {
  const auto error = [](double value, GgufType type) {
    return error_of([&] { gguf_encode(torch::full({1, 32}, value), type); });
  };
  CHECK(contains(error(1e5, GgufType::f16), "not finite in f16"));
  CHECK(error(1e5, GgufType::q8_0) == "");
  CHECK(contains(error(1e9, GgufType::q8_0), "not finite in q8_0"));
  for (const GgufType type : {GgufType::f32, GgufType::f16, GgufType::bf16, GgufType::q8_0}) {
    CHECK(contains(error(NAN, type), "not finite"));
    CHECK(contains(error(-std::numeric_limits<double>::infinity(), type), "not finite"));
    CHECK(parse_gguf_type(gguf_type_name(type)) == type);
  }
  CHECK(contains(error_of([] { gguf_bytes({4, 33}, GgufType::q8_0); }), "rows of 33"));
  CHECK(contains(error_of([] { parse_gguf_type("q4_0"); }), "q4_0"));
}

TEST_CASE("gguf: keys and tensors come back as they were given, and the file is whole or absent") {
  const TemporaryFolder folder;
  const torch::Tensor matrix = random_rows(5, 96);
  {
    lorapp::detail::GgufWriter file(folder / "a.gguf");
    file.set("a.text", std::string("über"));
    file.set("a.number", std::uint32_t{7});
    file.set("a.float", 0.5f);
    file.set("a.bool", true);
    file.set("a.texts", std::vector<std::string>{"x", "", "yz"});
    file.set("a.scores", std::vector<float>{1.5f, -2});
    file.set("a.types", std::vector<std::int32_t>{-3, 4});
    file.declare("vector", {3}, GgufType::f32);
    file.declare("matrix", {5, 96}, GgufType::bf16);
    file.declare("again", {96, 5}, GgufType::f32);
    file.write("vector", torch::tensor({1.0, 2.0, 3.0}, torch::kFloat64));
    CHECK_FALSE(std::filesystem::exists(folder / "a.gguf"));
    file.write("matrix", matrix);
    CHECK(contains(error_of([&] { file.finish(); }), "again was declared and not written"));
    file.write("again", matrix.t());
    file.finish();
    CHECK(file.num_bytes() == std::filesystem::file_size(folder / "a.gguf"));
  }
  const GgufFileContent content(read_file(folder / "a.gguf"));
  CHECK(content.texts.at("a.text") == "über");
  CHECK(content.numbers.at("a.number") == 7);
  CHECK(content.numbers.at("a.float") == 0.5);
  CHECK(content.numbers.at("a.bool") == 1);
  CHECK(content.text_lists.at("a.texts") == std::vector<std::string>{"x", "", "yz"});
  CHECK(content.number_lists.at("a.scores") == std::vector<double>{1.5, -2});
  CHECK(content.number_lists.at("a.types") == std::vector<double>{-3, 4});
  CHECK(torch::equal(content.tensors.at("vector"), torch::tensor({1.0f, 2.0f, 3.0f})));
  CHECK(
      torch::equal(content.tensors.at("matrix"), matrix.to(torch::kBFloat16).to(torch::kFloat32)));
  CHECK(torch::equal(content.tensors.at("again"), matrix.t()));
  {
    lorapp::detail::GgufWriter file(folder / "b.gguf");
    file.declare("x", {2}, GgufType::f32);
    CHECK(contains(error_of([&] { file.write("y", matrix); }),
                   "y is not the tensor that comes next"));
    CHECK(contains(error_of([&] { file.write("x", matrix); }), "it was declared as [2]"));
  }
  CHECK_FALSE(std::filesystem::exists(folder / "b.gguf"));
}

TEST_SUITE_END();
