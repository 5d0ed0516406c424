// Reading generation_config.json, in the spellings of transformers 4 and 5.
#include "json_file.hpp"

#include <lorapp/generate/generation_config.hpp>

#include <string_view>
#include <system_error>

namespace lorapp {

namespace {

constexpr std::string_view kOp = "generation_config";

/// Fields of transformers that change the text, with the value at which they do not.
nlohmann::json neutral_values() {
  return {{"num_beams", 1},
          {"min_length", 0},
          {"max_time", nullptr},
          {"token_healing", false},
          {"force_words_ids", nullptr},
          {"typical_p", 1.0},
          {"epsilon_cutoff", 0.0},
          {"eta_cutoff", 0.0},
          {"top_h", nullptr},
          {"no_repeat_ngram_size", 0},
          {"encoder_repetition_penalty", 1.0},
          {"bad_words_ids", nullptr},
          {"sequence_bias", nullptr},
          {"forced_bos_token_id", nullptr},
          {"forced_eos_token_id", nullptr},
          {"suppress_tokens", nullptr},
          {"begin_suppress_tokens", nullptr},
          {"exponential_decay_length_penalty", nullptr},
          {"guidance_scale", nullptr},
          {"watermarking_config", nullptr},
          {"penalty_alpha", nullptr},
          {"dola_layers", nullptr}};
}

}  // namespace

GenerationConfig GenerationConfig::from_pretrained(const std::filesystem::path& directory,
                                                   std::vector<std::string>* notes) {
  GenerationConfig config;
  const std::filesystem::path path = directory / "generation_config.json";
  std::error_code ignored;
  const auto status = std::filesystem::status(path, ignored);
  if (status.type() == std::filesystem::file_type::not_found) return config;

  const nlohmann::json file = detail::read_json_object(path, kOp);
  Problems problems{std::string(kOp), path.string()};
  config.max_new_tokens =
      detail::get_int_or(file, "max_new_tokens", problems, config.max_new_tokens, 1);
  config.min_new_tokens =
      detail::get_int_or(file, "min_new_tokens", problems, config.min_new_tokens, 0);
  config.do_sample = detail::get_bool_or(file, "do_sample", problems, config.do_sample);
  config.temperature = detail::get_double_or(file, "temperature", problems, config.temperature, 0);
  config.top_k = detail::get_int_or(file, "top_k", problems, config.top_k, 0);
  config.top_p = detail::get_double_or(file, "top_p", problems, config.top_p, 0, 1);
  config.min_p = detail::get_double_or(file, "min_p", problems, config.min_p, 0, 1);
  config.repetition_penalty =
      detail::get_double_or(file, "repetition_penalty", problems, config.repetition_penalty, 0);
  // One number or a list of them; -1 is an old way to say none.
  if (auto eos = detail::find_ints(file, "eos_token_id", problems, -1)) {
    std::erase(*eos, -1);
    config.eos_token_id = std::move(*eos);
  }
  if (file.contains("stop_strings") && file["stop_strings"].is_string()) {
    config.stop_strings = {file["stop_strings"].get<std::string>()};
  } else if (auto stops = detail::find_strings(file, "stop_strings", problems)) {
    config.stop_strings = std::move(*stops);
  }
  problems.throw_if_any();

  // A greedy configuration with temperature 0 is common in files; the field is not read then.
  if (config.temperature == 0 && !config.do_sample) config.temperature = 1.0;
  if (notes != nullptr) {
    const nlohmann::json neutral_fields = neutral_values();
    for (const auto& [name, neutral] : neutral_fields.items()) {
      const auto found = file.find(name);
      if (found == file.end() || found->is_null() || *found == neutral) continue;
      notes->push_back(path.string() + " sets " + name + " to " + detail::describe(*found) +
                       ", which lorapp does not apply");
    }
  }
  return config;
}

}  // namespace lorapp
