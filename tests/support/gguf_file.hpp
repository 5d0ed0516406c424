// A reader of GGUF files for tests.
#pragma once

#include <lorapp/io/gguf.hpp>

#include <doctest/doctest.h>
#include <torch/types.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace lorapp::test {

struct GgufFileContent {
  std::map<std::string, std::string> texts;
  std::map<std::string, double> numbers;  // true is 1
  std::map<std::string, std::vector<std::string>> text_lists;
  std::map<std::string, std::vector<double>> number_lists;
  std::map<std::string, torch::Tensor> tensors;  // float32
  std::map<std::string, GgufType> types;         // of the tensors

  explicit GgufFileContent(std::string content) : bytes_(std::move(content)) {
    REQUIRE(bytes_.substr(0, 4) == "GGUF");
    at_ = 4;
    CHECK(number<std::uint32_t>() == 3);
    const auto num_tensors = number<std::uint64_t>();
    const auto num_keys = number<std::uint64_t>();
    for (std::uint64_t i = 0; i < num_keys; ++i) read_key();
    std::vector<Entry> entries;
    for (std::uint64_t i = 0; i < num_tensors; ++i) entries.push_back(read_entry());
    const std::size_t data = (at_ + 31) / 32 * 32;
    for (const Entry& entry : entries) {
      const auto size = static_cast<std::size_t>(gguf_bytes(entry.shape, entry.type));
      REQUIRE(data + entry.offset + size <= bytes_.size());
      const torch::Tensor raw = torch::from_blob(bytes_.data() + data + entry.offset,
                                                 {static_cast<std::int64_t>(size)}, torch::kUInt8);
      tensors[entry.name] = gguf_decode(raw, entry.shape, entry.type);
      types[entry.name] = entry.type;
    }
  }

 private:
  struct Entry {
    std::string name;
    std::vector<std::int64_t> shape;
    GgufType type;
    std::uint64_t offset;
  };

  template <class Number>
  Number number() {
    Number value;
    std::memcpy(&value, bytes_.data() + at_, sizeof value);
    at_ += sizeof value;
    return value;
  }

  std::string text() {
    const auto size = number<std::uint64_t>();
    at_ += size;
    return bytes_.substr(at_ - size, size);
  }

  double scalar(std::uint32_t type) {
    if (type == 4) return number<std::uint32_t>();
    if (type == 5) return number<std::int32_t>();
    if (type == 6) return number<float>();
    REQUIRE(type == 7);
    return number<std::uint8_t>();
  }

  void read_key() {
    const std::string key = text();
    const auto type = number<std::uint32_t>();
    if (type == 8) {
      texts[key] = text();
    } else if (type != 9) {
      numbers[key] = scalar(type);
    } else {
      const auto inner = number<std::uint32_t>();
      const auto count = number<std::uint64_t>();
      for (std::uint64_t i = 0; i < count; ++i) {
        if (inner == 8) {
          text_lists[key].push_back(text());
        } else {
          number_lists[key].push_back(scalar(inner));
        }
      }
    }
  }

  Entry read_entry() {
    Entry entry;
    entry.name = text();
    const auto dimensions = number<std::uint32_t>();
    for (std::uint32_t i = 0; i < dimensions; ++i) {
      entry.shape.push_back(static_cast<std::int64_t>(number<std::uint64_t>()));
    }
    std::reverse(entry.shape.begin(), entry.shape.end());
    const std::map<std::uint32_t, GgufType> known = {
        {0, GgufType::f32}, {1, GgufType::f16}, {8, GgufType::q8_0}, {30, GgufType::bf16}};
    const auto type = number<std::uint32_t>();
    REQUIRE(known.contains(type));
    entry.type = known.at(type);
    entry.offset = number<std::uint64_t>();
    CHECK(entry.offset % 32 == 0);
    return entry;
  }

  std::string bytes_;
  std::size_t at_ = 0;
};

}  // namespace lorapp::test
