// New models, and models written to a folder.
#include <lorapp/error.hpp>
#include <lorapp/io/checkpoint.hpp>
#include <lorapp/io/safetensors.hpp>
#include <lorapp/nn/causal_lm.hpp>
#include <lorapp/nn/decoder.hpp>

#include "atomic_file.hpp"
#include "json_file.hpp"
#include "nn/model_folder.hpp"
#include "nn/weight_slots.hpp"

#include <ATen/CPUGeneratorImpl.h>

#include <string>

namespace lorapp {

CausalLM::~CausalLM() = default;

std::shared_ptr<CausalLM> CausalLM::from_config(const ModelConfig& config, std::uint64_t seed) {
  config.validate();
  LORAPP_CHECK(!config.quantization_config, "causal_lm",
               "a new model has dense weights: quantization_config must be empty");
  auto model = std::make_shared<DecoderLM>(config);
  const detail::WeightSlots slots(*model);
  const torch::Dtype dtype = config.dtype.value_or(torch::kFloat32);
  at::Generator generator = at::detail::createCPUGenerator(seed);
  for (const TensorSpec& spec : expected_tensors(config)) {
    torch::Tensor value = torch::empty(spec.shape, torch::kFloat32);
    const bool is_norm = spec.name.ends_with("norm.weight");
    if (is_norm) {
      value.fill_(1.0);
    } else if (spec.name.ends_with(".bias")) {
      value.zero_();
    } else {
      value.normal_(0.0, config.initializer_range, generator);
    }
    slots.set(spec.name, value.to(dtype));
  }
  detail::tie_head(*model);
  return model;
}

namespace {

std::string generation_config_text(const ModelConfig& config) {
  nlohmann::json file = {{"_from_model_config", true}};
  if (config.bos_token_id) file["bos_token_id"] = *config.bos_token_id;
  if (config.eos_token_id.size() == 1) file["eos_token_id"] = config.eos_token_id.front();
  if (config.eos_token_id.size() > 1) file["eos_token_id"] = config.eos_token_id;
  if (config.pad_token_id) file["pad_token_id"] = *config.pad_token_id;
  return detail::dump_json(file) + "\n";
}

}  // namespace

void DecoderLM::save_pretrained(const std::filesystem::path& dir) const {
  const auto parameters = named_parameters();
  NamedTensors tensors;
  for (const TensorSpec& spec : expected_tensors(config_)) {
    const torch::Tensor* parameter = parameters.find(spec.name);
    const bool head_8bit = head_->is_int8() && spec.name == "lm_head.weight";
    LORAPP_CHECK(parameter != nullptr, "save_pretrained", spec.name, " is ",
                 head_8bit ? "8-bit" : "4-bit",
                 ": a quantized model cannot be written as dense weights, only its adapter",
                 head_8bit ? "; load it without head_8bit to write it" : "");
    tensors.emplace_back(spec.name, parameter->detach());
  }
  ModelConfig config = config_;
  config.dtype = model_->embed_tokens->weight().scalar_type();
  const std::string generation =
      generation_config_.empty() ? generation_config_text(config) : generation_config_;
  const auto write_into = [&](const std::filesystem::path& folder) {
    write_safetensors(folder / kWeightsName, tensors);
    detail::write_file_atomically(folder / "generation_config.json", generation);
    config.save(folder / "config.json");
  };
  if (detail::is_new_or_empty(dir, "save_pretrained")) {
    detail::AtomicDirectory folder(dir);
    write_into(folder.path());
    folder.commit();
  } else {
    write_into(dir);  // beside other files, e.g. the tokenizer's: each file appears whole
  }
}

}  // namespace lorapp
