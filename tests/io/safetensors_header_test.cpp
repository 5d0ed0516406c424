// Headers that are cut, lie or are not headers: one message, never a crash.
#include "io/safetensors_header.hpp"

#include "support/error_of.hpp"
#include "support/temporary_folder.hpp"

#include <lorapp/error.hpp>
#include <lorapp/io/safetensors.hpp>

#include "raw_safetensors.hpp"

#include <doctest/doctest.h>
#include <torch/types.h>

#include <random>
#include <string>

using namespace lorapp;
using lorapp::detail::parse_safetensors_header;
using lorapp::test::contains;
using lorapp::test::error_of;
using lorapp::test::raw_safetensors;
using lorapp::test::TemporaryFolder;

namespace {

std::string header_error(std::string_view json, std::uint64_t data_bytes) {
  return error_of([&] { parse_safetensors_header(json, data_bytes, "f"); });
}

// {"t": {"dtype": …}} with the fields given as JSON.
std::string one(std::string_view dtype, std::string_view shape, std::string_view offsets) {
  return lorapp::detail::concat(R"({"t":{"dtype":)", dtype, R"(,"shape":)", shape,
                                R"(,"data_offsets":)", offsets, "}}");
}

}  // namespace

TEST_SUITE("safetensors_header") {
  TEST_CASE(
      "a header is read: metadata, scalars, empty tensors, packed types, unknown fields passed "
      "over") {
    const auto header = parse_safetensors_header(
        R"({"__metadata__":{"format":"pt","k":"ü"},
            "b":{"dtype":"F32","shape":[2,3],"data_offsets":[4,28],"note":{"a":[1,{"b":2}]},"x":null},
            "a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},
            "e":{"dtype":"BF16","shape":[3,0,2],"data_offsets":[4,4]},
            "p":{"dtype":"F4","shape":[3,2],"data_offsets":[28,31]}}   )",
        31, "f");
    CHECK(header.metadata.at("k") == "ü");
    REQUIRE(header.tensors.size() == 4);
    CHECK(header.tensors[0].first == "a");
    CHECK(header.tensors[0].second.shape.empty());
    CHECK(header.tensors[1].first == "e");
    CHECK(header.tensors[2].second.shape == std::vector<std::int64_t>{2, 3});
    CHECK(header.tensors[3].second.nbytes() == 3);
    CHECK(parse_safetensors_header("{}", 0, "f").tensors.empty());
    CHECK(parse_safetensors_header(R"({"__metadata__":null})", 0, "f").metadata.empty());
  }

  TEST_CASE("what is not a JSON object of tensors is refused") {
    CHECK(contains(header_error("", 0), "does not begin with '{'"));
    CHECK(contains(header_error("[]", 0), "does not begin with '{'"));
    CHECK(contains(header_error(" {}", 0), "does not begin with '{'"));
    CHECK(contains(header_error("{", 0), "no valid JSON"));
    CHECK(contains(header_error("{} x", 0), "no valid JSON"));
    CHECK(contains(header_error("{\"\xff\":1}", 0), "UTF-8"));
    CHECK(contains(header_error(R"({"t":5})", 0), R"("t" is 5; expected an object)"));
    CHECK(contains(header_error(R"({"t":[]})", 0), R"("t" is a list; expected an object)"));
    CHECK(contains(header_error(R"({"t":null})", 0), R"("t" is null)"));
    CHECK(contains(header_error(R"({"__metadata__":[1]})", 0), "is a list"));
    CHECK(contains(header_error(R"({"__metadata__":{"a":1,"b":{},"c":"x","c":"y"}})", 0),
                   "3 problems"));
    CHECK(contains(header_error(std::string(50'000'000, '{'), 0), "no valid JSON"));
    CHECK(contains(header_error("{\"t\":" + std::string(5'000'000, '['), 0), "f: "));
  }

  TEST_CASE("a tensor with missing, wrong or repeated fields is named with what is wrong") {
    CHECK(contains(header_error(R"({"t":{}})", 0), "dtype, shape, data_offsets is missing"));
    CHECK(contains(header_error(one("5", "[]", "[0,4]"), 4), "dtype is 5; expected a string"));
    CHECK(contains(header_error(one("\"F31\"", "[]", "[0,4]"), 4), "dtype \"F31\" is not known"));
    CHECK(contains(header_error(one("\"F32\"", "3", "[0,4]"), 4), "shape is 3; expected a list"));
    CHECK(contains(header_error(one("\"F32\"", "[-1]", "[0,4]"), 4), "shape holds -1"));
    CHECK(contains(header_error(one("\"F32\"", "[1.0]", "[0,4]"), 4), "shape holds 1.0"));
    CHECK(contains(header_error(one("\"F32\"", "[\"1\"]", "[0,4]"), 4), "shape holds \"1\""));
    CHECK(contains(header_error(one("\"F32\"", "[[1]]", "[0,4]"), 4), "shape holds a list"));
    CHECK(contains(header_error(one("\"F32\"", "[1]", "[0]"), 4),
                   "data_offsets has 1 numbers; expected 2"));
    CHECK(
        contains(header_error(one("\"F32\"", "[1]", "[0,4,4]"), 4), "data_offsets has 3 numbers"));
    CHECK(contains(header_error(one("\"F32\"", "[1]", "[4,0]"), 4),
                   "begin at 4 and end before it at 0"));
    CHECK(contains(header_error(one("\"F32\"", "[1]", "{\"a\":[0,4]}"), 4),
                   "data_offsets is an object"));
    CHECK(contains(
        header_error(R"({"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"dtype":"I8"}})", 1),
        "key \"dtype\" is given twice"));
    CHECK(contains(header_error(R"({"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},
                               "t":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                                2),
                   "tensor \"t\" is described twice"));
    CHECK(contains(
        header_error(
            R"({"a":{"dtype":"F31"},"b":7,"c":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})",
            4),
        "3 problems"));
  }

  TEST_CASE("shapes must match their bytes, and products that overflow do not wrap around") {
    CHECK(contains(header_error(one("\"F32\"", "[2,3]", "[0,20]"), 20),
                   "shape [2, 3] of F32 takes 24 bytes"));
    CHECK(contains(header_error(one("\"F4\"", "[3]", "[0,1]"), 1), "no whole number of bytes"));
    // 2^62 · 4 bytes wraps to 0 in 64 bits, as does 2^32 · 2^32.
    CHECK(contains(header_error(one("\"F32\"", "[4611686018427387904]", "[0,0]"), 0),
                   "too large for any file"));
    CHECK(contains(header_error(one("\"U8\"", "[4294967296,4294967296]", "[0,0]"), 0),
                   "too large for any file"));
    CHECK(contains(header_error(one("\"U8\"", "[0,4294967296,4294967296]", "[0,0]"), 0),
                   "too large for any file"));
    CHECK(contains(header_error(one("\"U8\"", "[18446744073709551615]", "[0,0]"), 0),
                   "too large for any file"));
    CHECK(contains(header_error(one("\"U8\"", "[18446744073709551616]", "[0,0]"), 0),
                   "shape holds 18446744073709551616"));
    std::string ones = "[1";
    for (int i = 1; i < 100000; ++i) ones += ",1";
    CHECK(contains(header_error(one("\"U8\"", ones + "]", "[0,1]"), 1), "more than 64 dimensions"));
  }

  TEST_CASE("gaps, overlaps, data beyond the file and bytes left over are each named") {
    const auto two = [](std::string_view a, std::string_view b) {
      return lorapp::detail::concat(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)", a,
                                    R"(},"b":{"dtype":"U8","shape":[4],"data_offsets":)", b, "}}");
    };
    CHECK(header_error(two("[0,4]", "[4,8]"), 8).empty());
    CHECK(header_error(two("[4,8]", "[0,4]"), 8).empty());
    CHECK(contains(header_error(two("[0,4]", "[5,9]"), 9),
                   "\"b\" begins at byte 5, but \"a\" ends at 4: 1 bytes belong to no tensor"));
    CHECK(contains(header_error(two("[0,4]", "[2,6]"), 6), "2 bytes overlap"));
    CHECK(contains(header_error(two("[0,4]", "[0,4]"), 4), "4 bytes overlap"));
    CHECK(contains(header_error(two("[1,5]", "[5,9]"), 9),
                   "the data begin at 0: 1 bytes belong to no tensor"));
    CHECK(contains(header_error(two("[0,4]", "[4,8]"), 7),
                   "describes 8 bytes of tensors, the file holds 7"));
    CHECK(contains(header_error(two("[0,4]", "[4,8]"), 10), "2 bytes behind the last tensor"));
    CHECK(contains(header_error("{}", 3), "3 bytes behind the last tensor"));
    CHECK(contains(
        header_error(one("\"U8\"", "[4]", "[18446744073709551611,18446744073709551615]"), 4),
        "describes 18446744073709551615 bytes"));
  }

  TEST_CASE("a file cut anywhere is an error that names it") {
    const TemporaryFolder folder;
    write_safetensors(folder / "whole.safetensors",
                      {{"a", torch::arange(6)}, {"b", torch::ones({3})}});
    const std::string whole = test::read_file(folder / "whole.safetensors");
    for (std::size_t size = 0; size < whole.size(); ++size) {
      const auto path = folder.write("cut.safetensors", whole.substr(0, size));
      const std::string message = error_of([&] { SafetensorsFile::open(path); });
      CHECK_MESSAGE(contains(message, "cut.safetensors"), "cut at ", size);
    }
    CHECK_THROWS_AS(SafetensorsFile::open(folder.write("more.safetensors", whole + "x")), Error);
  }

  TEST_CASE(
      "a header length beyond the file or beyond the format's limit is refused before anything is "
      "allocated") {
    const TemporaryFolder folder;
    for (const char length : {'\x7f', '\xff'}) {
      const auto path = folder.write("a.safetensors", std::string(7, '\xff') + length + "{}");
      CHECK(contains(error_of([&] { SafetensorsFile::open(path); }), "claims a header of"));
    }
    // A sparse file that really is that large.
    const auto path = folder.write("large.safetensors", raw_safetensors("{}", ""));
    std::filesystem::resize_file(path, 200'000'000);
    std::string bytes(8, '\0');
    const std::uint64_t length = 150'000'000;
    std::memcpy(bytes.data(), &length, 8);
    std::fstream(path, std::ios::in | std::ios::out | std::ios::binary) << bytes;
    CHECK(
        contains(error_of([&] { SafetensorsFile::open(path); }), "at most 100000000 are allowed"));
  }

  TEST_CASE("thousands of mutated files are each read or refused, and what is read can be used") {
    const TemporaryFolder folder;
    write_safetensors(folder / "seed.safetensors",
                      {{"model.norm.weight", torch::arange(5, torch::kFloat)},
                       {"flag", torch::ones({}, torch::kBool)},
                       {"empty", torch::zeros({0, 3})},
                       {"half", torch::ones({2, 3}, torch::kHalf)}},
                      {{"format", "pt"}, {"note", "é\n"}});
    const std::string seed = test::read_file(folder / "seed.safetensors");
    std::mt19937_64 random(20240611);
    const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
    constexpr std::string_view kPieces[] = {"{",
                                            "}",
                                            "[",
                                            "]",
                                            ",",
                                            ":",
                                            "\"",
                                            "0",
                                            "9",
                                            "-1",
                                            "1e9",
                                            "null",
                                            "18446744073709551615",
                                            "\\u0000",
                                            "\\",
                                            "F32",
                                            "\"shape\"",
                                            "\xff",
                                            " "};
    int accepted = 0;
    int opened = 0;
    for (int round = 0; round < 6000; ++round) {
      std::string bytes = seed;
      const std::size_t count = 1 + below(round % 2 == 0 ? 1 : 4);
      for (std::size_t i = 0; i < count; ++i) {
        const std::size_t at = below(bytes.size());
        switch (below(5)) {
          case 0:
            bytes[at] = static_cast<char>(below(256));
            break;
          case 1:
            bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(8)));
            break;
          case 2:
            bytes.erase(at, 1 + below(8));
            break;
          case 3:
            bytes.insert(at, kPieces[below(std::size(kPieces))]);
            break;
          default:
            bytes.insert(at, bytes.substr(below(bytes.size()), below(40)));
            break;
        }
      }
      // The text alone goes to the parser, whatever became of the length in front of it.
      const std::size_t header_end =
          bytes.rfind('}') == std::string::npos ? bytes.size() : bytes.rfind('}') + 1;
      bool fits = false;
      if (header_end > 8) {
        const std::string_view header = std::string_view(bytes).substr(8, header_end - 8);
        fits = header_error(header, bytes.size() - header_end).empty();
        accepted += fits;
      }
      // Every eighth whole file is opened as it is, and each that the parser took with the length
      // set right.
      if (!fits && round % 8 != 0) continue;
      if (fits) {
        const std::uint64_t length = header_end - 8;
        std::memcpy(bytes.data(), &length, 8);
      }
      const auto path = folder.write("mutant" + std::to_string(round) + ".safetensors", bytes);
      try {
        const auto file = SafetensorsFile::open(path);
        ++opened;
        for (const auto& name : file.names()) {
          if (file.info(name).dtype.starts_with("F4") || file.info(name).dtype.starts_with("F6"))
            continue;
          const torch::Tensor tensor = file.view(name).clone();
          CHECK(tensor.nbytes() == file.info(name).nbytes());
        }
      } catch (const Error& error) {
        CHECK_FALSE(fits);
        CHECK(contains(error.what(), path.filename().string()));
      }
      std::filesystem::remove(path);
    }
    CHECK(accepted > 0);
    CHECK(opened >= accepted);
  }
}
