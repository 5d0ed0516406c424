// A model folder as one GGUF file.
#include "data/gguf_vocabulary.hpp"
#include "gguf_names.hpp"
#include "io/gguf_writer.hpp"
#include "nn/tensor_name.hpp"
#include "nn/weight_sources.hpp"

#include <lorapp/error.hpp>
#include <lorapp/nn/rotary.hpp>
#include <lorapp/peft/export_gguf.hpp>
#include <lorapp/quant/ops.hpp>

#include <algorithm>
#include <cmath>
#include <utility>

namespace lorapp {

namespace {

constexpr const char* kOp = "export_gguf";
constexpr const char* kFrequencies = "rope_freqs.weight";

std::uint32_t count(std::int64_t number) { return static_cast<std::uint32_t>(number); }

/// llama.cpp's number of what most matrices of a file are.
std::uint32_t file_type(GgufType type) {
  switch (type) {
    case GgufType::f32:
      return 0;
    case GgufType::f16:
      return 1;
    case GgufType::q8_0:
      return 7;
    case GgufType::bf16:
      return 32;
  }
  return 0;
}

void check_rope(const ModelConfig& config, Problems& problems) {
  const RopeScaling& scaling = config.rope_scaling;
  const RopeScaling defaults;
  if (scaling.type == RopeType::dynamic) {
    problems.add("dynamic rotary scaling is unknown to llama.cpp");
  }
  const bool own_numbers = scaling.attention_factor || scaling.mscale || scaling.mscale_all_dim ||
                           scaling.beta_fast != defaults.beta_fast ||
                           scaling.beta_slow != defaults.beta_slow || !scaling.truncate;
  if (scaling.type == RopeType::yarn && own_numbers) {
    problems.add(
        "yarn with attention_factor, mscale, beta_fast, beta_slow or truncate of its own is "
        "not supported");
  }
}

void set_rope(detail::GgufWriter& file, const std::string& prefix, const ModelConfig& config) {
  file.set(prefix + "rope.dimension_count", count(config.head_size()));
  file.set(prefix + "rope.freq_base", static_cast<float>(config.rope_theta));
  const RopeScaling& scaling = config.rope_scaling;
  if (scaling.type != RopeType::linear && scaling.type != RopeType::yarn) return;
  file.set(prefix + "rope.scaling.type", std::string(rope_type_name(scaling.type)));
  file.set(prefix + "rope.scaling.factor", static_cast<float>(scaling.factor));
  if (scaling.type == RopeType::linear) return;
  file.set(
      prefix + "rope.scaling.original_context_length",
      count(scaling.original_max_position_embeddings.value_or(config.max_position_embeddings)));
}

void set_model(detail::GgufWriter& file,
               const std::string& architecture,
               const ModelConfig& config,
               const GgufOptions& options,
               const std::string& name) {
  const std::string prefix = architecture + ".";
  file.set("general.architecture", architecture);
  file.set("general.type", std::string("model"));
  file.set("general.name", name);
  file.set("general.file_type", file_type(options.type));
  if (options.type == GgufType::q8_0) file.set("general.quantization_version", count(2));
  file.set(prefix + "vocab_size", count(config.vocab_size));
  file.set(prefix + "context_length", count(config.max_position_embeddings));
  file.set(prefix + "embedding_length", count(config.hidden_size));
  file.set(prefix + "block_count", count(config.num_hidden_layers));
  file.set(prefix + "feed_forward_length", count(config.intermediate_size));
  file.set(prefix + "attention.head_count", count(config.num_attention_heads));
  file.set(prefix + "attention.head_count_kv", count(config.num_key_value_heads));
  file.set(prefix + "attention.key_length", count(config.head_size()));
  file.set(prefix + "attention.value_length", count(config.head_size()));
  file.set(prefix + "attention.layer_norm_rms_epsilon", static_cast<float>(config.rms_norm_eps));
  set_rope(file, prefix, config);
}

void set_tokenizer(detail::GgufWriter& file, const detail::GgufVocabulary& vocabulary) {
  const std::string prefix = "tokenizer.ggml.";
  file.set(prefix + "model", vocabulary.model);
  file.set(prefix + "pre", vocabulary.pre);
  file.set(prefix + "tokens", vocabulary.tokens);
  file.set(prefix + "token_type", vocabulary.types);
  if (!vocabulary.scores.empty()) file.set(prefix + "scores", vocabulary.scores);
  if (!vocabulary.merges.empty()) file.set(prefix + "merges", vocabulary.merges);
  const std::pair<const char*, std::optional<std::int64_t>> ids[] = {
      {"bos_token_id", vocabulary.bos},
      {"eos_token_id", vocabulary.eos},
      {"unknown_token_id", vocabulary.unk},
      {"padding_token_id", vocabulary.pad}};
  for (const auto& [key, id] : ids) {
    if (id) file.set(prefix + key, count(*id));
  }
  file.set(prefix + "add_bos_token", vocabulary.add_bos);
  file.set(prefix + "add_eos_token", vocabulary.add_eos);
  if (vocabulary.model == "llama")
    file.set(prefix + "add_space_prefix", vocabulary.add_space_prefix);
  if (!vocabulary.chat_template.empty()) {
    file.set("tokenizer.chat_template", vocabulary.chat_template);
  }
}

// What llama3's scaling divides each frequency by, [head size / 2].
torch::Tensor frequency_divisors(const ModelConfig& config) {
  const auto frequencies = [&](const RopeScaling& scaling) {
    return rope_frequencies(config.head_size(), config.rope_theta, scaling,
                            config.max_position_embeddings)
        .inverse;
  };
  return frequencies({}) / frequencies(config.rope_scaling);
}

// A tensor of the folder and what it is in the file.
struct Entry {
  const detail::WeightSource* source;
  std::string name;
  GgufType type;
};

}  // namespace

GgufFile export_gguf(const std::filesystem::path& dir,
                     const std::filesystem::path& path,
                     const GgufOptions& options) {
  const auto folder = detail::ModelFolder::open(dir, {});
  const ModelConfig& config = folder.config;
  Problems problems(kOp, dir.string());
  const detail::GgufArchitecture* architecture = detail::gguf_architecture(config.model_type);
  if (architecture == nullptr) {
    problems.add("a model of the type \"", config.model_type, "\" is not supported; supported are ",
                 detail::kGgufModelTypes);
  }
  check_rope(config, problems);
  const auto vocabulary = detail::gguf_vocabulary(dir, config.vocab_size, problems);
  std::vector<Entry> entries;
  for (const detail::WeightSource& source : folder.sources) {
    const auto [module, leaf] = detail::split_tensor_name(source.spec.name);
    const std::string name = detail::gguf_name(module);
    if (name.empty())
      problems.add(source.spec.name, " has no name in llama.cpp that is known here");
    GgufType type = source.spec.shape.size() > 1 ? options.type : GgufType::f32;
    if (type == GgufType::q8_0 && source.spec.shape.back() % kQ8BlockSize != 0)
      type = GgufType::f16;
    entries.push_back({&source, name + "." + leaf, type});
  }
  problems.throw_if_any();

  const torch::NoGradGuard no_grad;
  const detail::WeightReader reader(folder, {});
  detail::GgufWriter file(path);
  set_model(
      file, architecture->name, config, options,
      options.name.empty() ? std::filesystem::canonical(dir).filename().string() : options.name);
  set_tokenizer(file, vocabulary);
  const bool has_divisors = config.rope_scaling.type == RopeType::llama3;
  if (has_divisors) file.declare(kFrequencies, {config.head_size() / 2}, GgufType::f32);
  for (const Entry& entry : entries) file.declare(entry.name, entry.source->spec.shape, entry.type);
  if (has_divisors) file.write(kFrequencies, frequency_divisors(config));
  for (const Entry& entry : entries) {
    // A view of the file: the numbers are rounded once, to the type of the new one.
    const torch::Tensor value = entry.source->is_4bit
                                    ? dequantize_4bit(reader.quantized(*entry.source))
                                    : folder.checkpoint.view(entry.source->name);
    const std::string module = detail::split_tensor_name(entry.source->spec.name).first;
    file.write(entry.name, detail::gguf_rows(module, value, *architecture, config));
  }
  file.finish();
  return {.bytes = static_cast<std::int64_t>(file.num_bytes()),
          .tensors = static_cast<std::int64_t>(file.num_tensors())};
}

}  // namespace lorapp
