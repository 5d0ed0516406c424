// What the tests of this room share: the goldens, the messages of errors.
// Convention: paths are taken from the source tree, so that the tests run in any working directory.
#pragma once

#include "support/error_of.hpp"
#include "support/temporary_folder.hpp"

#include <lorapp/error.hpp>

#include <nlohmann/json.hpp>

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace data_test {

namespace fs = std::filesystem;
using lorapp::test::contains;
using lorapp::test::error_of;
using lorapp::test::read_file;
using lorapp::test::TemporaryFolder;

inline fs::path source_dir() { return fs::path(LORAPP_TEST_SOURCE_DIR) / "tests" / "data"; }
inline fs::path tokenizer_dir(const std::string& name) {
  return source_dir() / "tokenizers" / name;
}

inline const nlohmann::json& goldens() {
  static const nlohmann::json value =
      nlohmann::json::parse(lorapp::test::read_file(source_dir() / "goldens.json"));
  return value;
}

inline std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (std::size_t i = 0; i < hex.size(); i += 2)
    bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return bytes;
}

}  // namespace data_test
