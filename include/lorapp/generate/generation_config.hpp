// GenerationConfig: how a text is continued, under transformers' names.
// Convention: a default changes nothing; without do_sample the likeliest token is taken.
#pragma once

#include <lorapp/error.hpp>
#include <lorapp/export.hpp>

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace lorapp {

/// The settings of one generation; field names and meanings are those of transformers'
/// GenerationConfig.
struct GenerationConfig {
  int64_t max_new_tokens = 150;
  bool do_sample = false;
  double temperature = 1.0;         ///< scores are divided by it
  int64_t top_k = 50;               ///< 0: all; tokens that tie with the k-th stay
  double top_p = 1.0;               ///< the smallest set of likeliest tokens whose mass reaches it
  double min_p = 0.0;               ///< tokens less likely than min_p × the likeliest one go
  double repetition_penalty = 1.0;  ///< of every token in the prompt or the new text
  int64_t min_new_tokens = 0;       ///< no end token before so many new tokens
  bool ignore_eos = false;          ///< go on behind an end token (lorapp's own)
  /// Each ends the text where it first appears; the text stops before it.
  std::vector<std::string> stop_strings{};
  /// Tokens that end the text; empty: the model's own, else the tokenizer's.
  std::vector<int64_t> eos_token_id{};
  uint64_t seed = 42;  ///< of the sampler's own generator

  /// Reads `generation_config.json` of a folder; a missing file means the defaults.
  ///
  /// As transformers 5 reads it: an absent or null field is the default. max_length is not read,
  /// since here a limit counts new tokens. `notes`, if given, receives a line for each field that
  /// would change what transformers generates and that lorapp does not know (e.g. num_beams 4).
  /// Throws Error listing every problem of the file.
  LORAPP_API static GenerationConfig from_pretrained(const std::filesystem::path& directory,
                                                     std::vector<std::string>* notes = nullptr);

  /// Throws one Error that lists every field outside its range.
  void validate() const {
    Problems problems("generation_config", "the settings");
    const auto check = [&](bool good, const auto&... message) {
      if (!good) problems.add(message...);
    };
    check(max_new_tokens >= 1, "max_new_tokens is ", max_new_tokens, ", expected 1 or more");
    check(min_new_tokens >= 0, "min_new_tokens is ", min_new_tokens, ", expected 0 or more");
    check(min_new_tokens <= max_new_tokens || max_new_tokens < 1, "min_new_tokens is ",
          min_new_tokens, ", more than max_new_tokens, ", max_new_tokens);
    check(std::isfinite(temperature) && temperature > 0, "temperature is ", temperature,
          ", expected a number above 0 (do_sample off is the limit at 0)");
    check(top_k >= 0, "top_k is ", top_k, ", expected 0 (all) or more");
    check(top_p >= 0 && top_p <= 1, "top_p is ", top_p, ", expected a number from 0 to 1");
    check(min_p >= 0 && min_p <= 1, "min_p is ", min_p, ", expected a number from 0 to 1");
    check(std::isfinite(repetition_penalty) && repetition_penalty > 0, "repetition_penalty is ",
          repetition_penalty, ", expected a number above 0");
    for (const std::string& stop : stop_strings) {
      check(!stop.empty(), "a stop string is empty, which would end every text at once");
    }
    problems.throw_if_any();
  }
};

}  // namespace lorapp
