// What the tests of this room share: the goldens, the messages of errors.
// Convention: paths are taken from the source tree, so that the tests run in any working directory.
#pragma once

#include "support/temporary_folder.hpp"

#include <lorapp/error.hpp>

#include <nlohmann/json.hpp>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace data_test {

namespace fs = std::filesystem;
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

/// The message of the Error that `action` throws; empty if it throws none.
template <class Action>
std::string error_of(Action action) {
  try {
    action();
  } catch (const lorapp::Error& error) {
    return error.what();
  }
  return {};
}

inline bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

/// The folder of real files (LORAPP_SHARED_DATA, else shared/data beside the checkout); empty where
/// there is none.
inline fs::path real_data() {
  const char* given = std::getenv("LORAPP_SHARED_DATA");
  const fs::path folder = given != nullptr
                              ? fs::path(given)
                              : fs::path(LORAPP_TEST_SOURCE_DIR) / ".." / "shared" / "data";
  return fs::exists(folder / "dolly") ? folder : fs::path();
}

}  // namespace data_test
