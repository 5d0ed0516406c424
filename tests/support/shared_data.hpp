// Real files that are not part of the project: models, tokenizers and data for local tests.
// They lie in LORAPP_SHARED_DATA, else in ../shared/data of the checkout; without them a test says
// so and passes.
#pragma once

#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>

namespace lorapp::test {

/// The path of a file or folder below the shared data, if it is there.
inline std::optional<std::filesystem::path> shared_data(const std::string& name) {
  const char* set = std::getenv("LORAPP_SHARED_DATA");
  const std::filesystem::path root =
      set != nullptr ? std::filesystem::path(set)
                     : std::filesystem::path(LORAPP_TEST_SOURCE_DIR).parent_path() / "shared/data";
  std::error_code ignored;
  if (!std::filesystem::exists(root / name, ignored)) return std::nullopt;
  return root / name;
}

/// True, with a message that the test was skipped, where there are no shared data.
inline bool shared_data_missing() {
  if (shared_data("")) return false;
  MESSAGE("skipped: no folder of real files (LORAPP_SHARED_DATA, or shared/data beside the tree)");
  return true;
}

}  // namespace lorapp::test

/// Names `variable` (a std::filesystem::path) below the shared data, or ends the test with a
/// message that it was skipped.
#define LORAPP_NEEDS_SHARED_DATA(variable, name)                             \
  const auto variable##_found = ::lorapp::test::shared_data(name);           \
  if (!variable##_found) {                                                   \
    MESSAGE("skipped: the shared data (LORAPP_SHARED_DATA) have no ", name); \
    return;                                                                  \
  }                                                                          \
  const std::filesystem::path variable = *variable##_found
