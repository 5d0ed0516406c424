#include "nn/model_folder.hpp"

#include <lorapp/error.hpp>

#include <system_error>

namespace lorapp::detail {

namespace {

constexpr const char* kSideFiles[] = {"generation_config.json",
                                      "tokenizer.model",
                                      "tokenizer.json",
                                      "tokenizer_config.json",
                                      "special_tokens_map.json",
                                      "added_tokens.json",
                                      "chat_template.jinja",
                                      "vocab.json",
                                      "merges.txt"};

}  // namespace

bool is_new_or_empty(const std::filesystem::path& dir, std::string_view op) {
  std::error_code error;
  if (!std::filesystem::exists(dir, error)) return true;  // AtomicDirectory says if it cannot be
  LORAPP_CHECK(std::filesystem::is_directory(dir, error), op, dir.string(),
               ": a file of that name exists; expected a folder");
  const bool empty = std::filesystem::is_empty(dir, error);
  LORAPP_CHECK(!error, op, dir.string(), ": cannot be read: ", error.message());
  return empty;
}

void check_new_or_empty(const std::filesystem::path& dir, std::string_view op) {
  LORAPP_CHECK(is_new_or_empty(dir, op), op, dir.string(),
               ": the output folder is not empty; expected a new or an empty one");
}

void copy_side_files(const std::filesystem::path& from,
                     const std::filesystem::path& to,
                     std::string_view op) {
  std::error_code error;
  for (const char* name : kSideFiles) {
    if (!std::filesystem::exists(from / name, error)) continue;
    std::filesystem::copy_file(from / name, to / name, error);
    LORAPP_CHECK(!error, op, (from / name).string(), ": cannot be copied to ", to.string(), ": ",
                 error.message());
  }
}

}  // namespace lorapp::detail
