// lorapp tokenize: text to token ids and back.
#include "command.hpp"
#include "console.hpp"
#include "hub.hpp"
#include "options.hpp"

#include <lorapp/data/tokenizer.hpp>
#include <lorapp/error.hpp>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace lorapp::program {

namespace {

using Ids = std::vector<std::int64_t>;

struct Options {
  CommonOptions common{};
  std::string model{};
  std::optional<std::string> text{};
  std::string data{};
  bool decode = false;
  bool no_special_tokens = false;
  bool parse_special = false;

  void add_to(CLI::App& app);
};

void Options::add_to(CLI::App& app) {
  app.add_option("--model", model,
                 "Folder with tokenizer.model or tokenizer.json, or the id of a model on the hub")
      ->required();
  auto* text_option =
      app.add_option("--text", text, "Text to encode; without it and --data: stdin, every byte");
  app.add_option("--data", data, "JSON file with an array of texts (--decode: of arrays of ids)")
      ->excludes(text_option);
  app.add_flag("--decode", decode, "Ids to text: ids as numbers or a JSON array");
  app.add_flag("--no-special-tokens", no_special_tokens, "Put no bos or eos around the text");
  app.add_flag(
      "--parse-special", parse_special,
      "Text that looks like a special token is one (--decode: special tokens are written)");
  common.add_to(app);
}

std::string all_of(std::istream& in) {
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

Json read_array(const std::string& path) {
  std::error_code error;
  LORAPP_CHECK(!std::filesystem::is_directory(path, error), "tokenize", path,
               ": is a folder, expected a JSON file");
  std::ifstream file(path, std::ios::binary);
  LORAPP_CHECK(file.is_open(), "tokenize", path, ": cannot be opened");
  const Json array = Json::parse(all_of(file), nullptr, /*allow_exceptions=*/false);
  LORAPP_CHECK(!array.is_discarded(), "tokenize", path, ": is not JSON, expected an array");
  LORAPP_CHECK(array.is_array(), "tokenize", path, ": expected an array, found ",
               array.type_name());
  return array;
}

/// Ids as "1 2 3", "1, 2, 3" or "[1, 2, 3]".
Ids parse_ids(std::string text) {
  for (char& c : text) {
    if (c == ',' || c == '[' || c == ']') c = ' ';
  }
  std::istringstream words(text);
  Ids ids;
  for (std::string word; words >> word;) {
    std::size_t end = 0;
    std::int64_t id = -1;
    try {
      id = std::stoll(word, &end);
    } catch (const std::exception&) {
      end = 0;
    }
    LORAPP_CHECK(end == word.size(), "tokenize", "\"", word, "\" is not a token id");
    ids.push_back(id);
  }
  return ids;
}

/// The folder that `--model` means: of a hub id, a snapshot with a tokenizer of either kind.
std::filesystem::path tokenizer_folder(const Options& options) {
  return model_folder(options.model,
                      {.any_of = {"tokenizer.model", "tokenizer.json"},
                       .weights = false,
                       .patterns = {"tokenizer*", "special_tokens_map.json", "added_tokens.json",
                                    "vocab.json", "merges.txt", "config.json"}},
                      options.common.quiet);
}

class TokenizeJob {
 public:
  explicit TokenizeJob(const Options& options)
      : options_(options), tokenizer_(Tokenizer::from_pretrained(tokenizer_folder(options))) {}

  Ids encode(const std::string& text) const {
    const bool special = !options_.no_special_tokens;
    return options_.parse_special ? tokenizer_.encode_with_special(text, special)
                                  : tokenizer_.encode(text, special);
  }
  std::string decode(const Ids& ids) const {
    return tokenizer_.decode(ids, /*skip_special_tokens=*/!options_.parse_special);
  }

  /// One text: {"tokens", "text"}.
  void run_single() const {
    const std::string given = options_.text ? *options_.text : all_of(std::cin);
    const Ids tokens = options_.decode ? parse_ids(given) : encode(given);
    const std::string text = options_.decode ? decode(tokens) : given;
    if (options_.common.json) {
      std::cout << to_line({{"tokens", tokens}, {"text", text}}) << '\n';
    } else if (options_.decode) {
      std::cout << text << '\n';
    } else {
      for (std::size_t i = 0; i < tokens.size(); ++i) std::cout << (i > 0 ? " " : "") << tokens[i];
      std::cout << '\n';
    }
  }

  /// A file's array: an array of arrays, or with --decode of texts.
  void run_file() const {
    const Json given = read_array(options_.data);
    Problems problems("tokenize", options_.data);
    Json tokens = Json::array();
    Json texts = Json::array();
    for (std::size_t i = 0; i < given.size(); ++i) {
      const Json& element = given[i];
      if (options_.decode) {
        const bool good = element.is_array() && std::ranges::all_of(element, [](const Json& id) {
                            return id.is_number_integer();
                          });
        if (!good) {
          problems.add("element ", i + 1, " is not an array of token ids");
          continue;
        }
        tokens.push_back(element);
        texts.push_back(decode(element.get<Ids>()));
      } else {
        if (!element.is_string()) {
          problems.add("element ", i + 1, " is a ", element.type_name(), ", expected a string");
          continue;
        }
        texts.push_back(element);
        tokens.push_back(encode(element.get<std::string>()));
      }
    }
    problems.throw_if_any();
    if (options_.common.json) {
      std::cout << to_line({{"tokens", std::move(tokens)}, {"text", std::move(texts)}}) << '\n';
    } else {
      std::cout << to_line(options_.decode ? texts : tokens) << '\n';
    }
  }

 private:
  const Options& options_;
  Tokenizer tokenizer_;
};

int run(const Options& options) {
  options.common.apply();
  const TokenizeJob job(options);
  if (options.data.empty()) {
    job.run_single();
  } else {
    job.run_file();
  }
  return kDone;
}

}  // namespace

Command tokenize_command() {
  return {"tokenize", "Text to token ids, and back", [](CLI::App& app) {
            const auto options = std::make_shared<Options>();
            options->add_to(app);
            return [options] { return run(*options); };
          }};
}

}  // namespace lorapp::program
