// A model folder in 4 bits, tensor by tensor.
#include <lorapp/error.hpp>
#include <lorapp/io/checkpoint.hpp>
#include <lorapp/io/dtype.hpp>
#include <lorapp/nn/model_config.hpp>
#include <lorapp/nn/quantize_pretrained.hpp>

#include "atomic_file.hpp"
#include "json_file.hpp"
#include "nn/bnb_checkpoint.hpp"
#include "nn/model_folder.hpp"
#include "nn/weight_sources.hpp"

#include <algorithm>
#include <string_view>

namespace lorapp {

namespace {

constexpr std::string_view kOp = "quantize";

// BitsAndBytesConfig as transformers writes it.
nlohmann::json quantization_section(const QuantConfig& quant, torch::Dtype compute_dtype) {
  // lm_head alone is what a null means; a list takes its place.
  nlohmann::json skipped;
  if (quant.skip_modules != QuantConfig{}.skip_modules && !quant.skip_modules.empty()) {
    skipped = quant.skip_modules;
    const std::string head(detail::kHead);
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

void write_config(const std::filesystem::path& from,
                  const std::filesystem::path& to,
                  const QuantizePretrainedOptions& options,
                  const ModelConfig& config,
                  torch::Dtype dtype) {
  nlohmann::json file = detail::read_json_object(from, kOp);
  file["quantization_config"] = quantization_section(
      options.quant_config, options.quant_config.compute_dtype.value_or(dtype));
  file[file.contains("dtype") ? "dtype" : "torch_dtype"] = hf_dtype_name(dtype);
  if (!config.tie_word_embeddings) file["tie_word_embeddings"] = false;  // what the weights are
  detail::write_json_file(to, file);
}

}  // namespace

QuantizedFolder quantize_pretrained(const std::filesystem::path& dir,
                                    const std::filesystem::path& output_dir,
                                    const QuantizePretrainedOptions& options) {
  detail::check_new_or_empty(output_dir, kOp);
  ModelConfig config = ModelConfig::from_pretrained(dir);
  LORAPP_CHECK(!config.quantization_config, kOp, dir.string(),
               ": the weights are 4-bit already (quantization_config in config.json)");
  const LoadOptions load{.quant_config = options.quant_config, .dtype = options.dtype};
  detail::check_load_options(load);
  const Checkpoint checkpoint = Checkpoint::open(dir);
  detail::untie_own_head(config, checkpoint);
  const auto sources = detail::match_weights(checkpoint, config, dir);
  detail::check_skip_modules(config, options.quant_config);

  const torch::NoGradGuard no_grad;
  const detail::WeightReader reader(checkpoint, config, load);
  detail::AtomicDirectory folder(output_dir);
  CheckpointWriter writer(folder.path(), options.max_shard_bytes);
  QuantizedFolder result;
  torch::Dtype dtype = torch::kFloat32;
  for (const detail::WeightSource& source : sources) {
    if (reader.quantizes(source)) {
      const QuantizedTensor weight = reader.quantized(source);
      dtype = weight.dtype();
      writer.add(detail::bnb_tensors(source.spec.name, weight));
      ++result.quantized_weights;
    } else {
      LORAPP_CHECK(!source.is_4bit, kOp, source.name, " of ", dir.string(), " is 4-bit already");
      writer.add({{source.spec.name, reader.dense(source)}});
      ++result.dense_weights;
    }
  }
  LORAPP_CHECK(result.quantized_weights > 0, kOp, "skip_modules leaves no layer to quantize in ",
               dir.string());
  writer.finish();
  result.bytes = writer.num_bytes();
  write_config(dir / "config.json", folder.path() / "config.json", options, config, dtype);
  detail::copy_side_files(dir, folder.path(), kOp);
  folder.commit();
  return result;
}

}  // namespace lorapp
