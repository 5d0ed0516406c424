#include "nn/model_folder.hpp"

#include <lorapp/error.hpp>
#include <lorapp/io/dtype.hpp>

#include "json_file.hpp"
#include "nn/weight_sources.hpp"

#include <algorithm>
#include <string>
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

// BitsAndBytesConfig as transformers writes it.
nlohmann::json quantization_section(const QuantConfig& quant, torch::Dtype compute_dtype) {
  // lm_head alone is what a null means; a list takes its place.
  nlohmann::json skipped;
  if (quant.skip_modules != QuantConfig{}.skip_modules && !quant.skip_modules.empty()) {
    skipped = quant.skip_modules;
    const std::string head(kHead);
    const auto& names = quant.skip_modules;
    if (std::find(names.begin(), names.end(), head) == names.end()) skipped.push_back(head);
  }
  return {{"_load_in_4bit", true},
          {"_load_in_8bit", false},
          {"bnb_4bit_compute_dtype", hf_dtype_name(compute_dtype)},
          {"bnb_4bit_quant_storage", "uint8"},
          {"bnb_4bit_quant_type", quant_type_name(quant.quant_type)},
          {"bnb_4bit_use_double_quant", quant.use_double_quant},
          {"llm_int8_enable_fp32_cpu_offload", false},
          {"llm_int8_has_fp16_weight", false},
          {"llm_int8_skip_modules", skipped},
          {"llm_int8_threshold", 6.0},
          {"load_in_4bit", true},
          {"load_in_8bit", false},
          {"quant_method", "bitsandbytes"}};
}

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

void write_folder_config(const std::filesystem::path& from,
                         const std::filesystem::path& to,
                         std::string_view op,
                         const WrittenWeights& weights) {
  nlohmann::json file = read_json_object(from / "config.json", op);
  file.erase("quantization_config");
  if (weights.quant_config) {
    file["quantization_config"] = quantization_section(
        *weights.quant_config, weights.quant_config->compute_dtype.value_or(weights.dtype));
  }
  file[file.contains("dtype") ? "dtype" : "torch_dtype"] = hf_dtype_name(weights.dtype);
  if (!weights.tied) file["tie_word_embeddings"] = false;
  write_json_file(to / "config.json", file);
}

}  // namespace lorapp::detail
