// PeftModel's files: adapter_config.json, adapter_model.safetensors, README.md.
#include "adapter_card.hpp"
#include "atomic_file.hpp"
#include "nearest_names.hpp"

#include <lorapp/error.hpp>
#include <lorapp/io/dtype.hpp>
#include <lorapp/io/safetensors.hpp>
#include <lorapp/nn/traverse.hpp>
#include <lorapp/peft/peft_model.hpp>

#include <algorithm>
#include <set>
#include <system_error>
#include <utility>

namespace lorapp {

namespace {

constexpr const char* kOp = "adapter";
constexpr const char* kConfigName = "adapter_config.json";
constexpr const char* kWeightsName = "adapter_model.safetensors";
constexpr const char* kCardName = "README.md";
constexpr const char* kPickleName = "adapter_model.bin";
constexpr const char* kPrefix = "base_model.model.";

std::string shape_text(torch::IntArrayRef shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  }
  return text + "]";
}

bool is_float(const std::string& dtype) {
  return dtype == "F32" || dtype == "F16" || dtype == "BF16" || dtype == "F64";
}

}  // namespace

NamedTensors PeftModel::adapter_state() const {
  NamedTensors state;
  for (const AdaptedLayer& layer : layers_) {
    state.emplace_back(kPrefix + layer.path + ".lora_A.weight", layer.adapter->a());
    state.emplace_back(kPrefix + layer.path + ".lora_B.weight", layer.adapter->b());
  }
  state.insert(state.end(), biases_.begin(), biases_.end());
  return state;
}

void PeftModel::save_pretrained(const std::filesystem::path& dir) const {
  LORAPP_CHECK(!layers_.empty(), kOp, dir.string(), ": this model has no adapters (left) to save");
  std::error_code error;
  std::filesystem::create_directories(dir, error);
  LORAPP_CHECK(!error, kOp, "cannot create the folder ", dir.string(), ": ", error.message());
  NamedTensors tensors;
  for (const auto& [name, tensor] : adapter_state()) tensors.emplace_back(name, tensor.detach());
  // Written aside first, then moved: a disk that fills up leaves an adapter that was there as it
  // was, rather than new weights beside an old configuration.
  const detail::AtomicDirectory aside(dir / ".new-adapter",
                                      detail::AtomicDirectory::Existing::replace);
  write_safetensors(aside.path() / kWeightsName, tensors);
  config_.save(aside.path() / kConfigName);
  detail::write_file_atomically(aside.path() / kCardName, detail::adapter_card(config_));
  for (const char* name : {kWeightsName, kConfigName, kCardName}) {
    std::filesystem::rename(aside.path() / name, dir / name, error);
    LORAPP_CHECK(!error, kOp, (dir / name).string(),
                 ": cannot be given its name: ", error.message());
  }
}

void PeftModel::load_adapter_weights(const std::filesystem::path& dir) {
  const std::filesystem::path path = dir / kWeightsName;
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored) &&
      std::filesystem::exists(dir / kPickleName, ignored)) {
    detail::fail(kOp,
                 dir.string() + " has " + kPickleName +
                     " only, a pickle, which can run code when it is read; save the adapter with "
                     "safe_serialization=True to get " +
                     kWeightsName);
  }
  const SafetensorsFile file = SafetensorsFile::open(path);
  const NamedTensors state = adapter_state();
  std::vector<std::string> expected;
  for (const auto& entry : state) expected.push_back(entry.first);
  const std::set<std::string> expected_set(expected.begin(), expected.end());
  std::vector<std::string> unexpected;
  for (const std::string& name : file.names()) {
    if (!expected_set.contains(name)) unexpected.push_back(name);
  }

  Problems problems(kOp, path.string());
  if (std::filesystem::exists(dir / kConfigName, ignored)) {
    // Another alpha would turn the same numbers into another model, and no shape would show it.
    const LoraConfig config = LoraConfig::from_file(dir / kConfigName);
    for (const AdaptedLayer& layer : layers_) {
      const double scale = config.scaling_of(layer.path);
      if (scale != layer.adapter->scale()) {
        problems.add(layer.path, " was trained with the scale ", scale, ", and has ",
                     layer.adapter->scale(), " in this model");
      }
    }
  }
  const auto suggestion = [](const std::string& name, const std::vector<std::string>& candidates) {
    const auto near = detail::nearest_names(name, candidates, 1);
    return near.empty() ? std::string() : "; nearest is " + near.front();
  };
  for (const auto& [name, tensor] : state) {
    if (!file.contains(name)) {
      problems.add("missing ", name, " ", shape_text(tensor.sizes()), suggestion(name, unexpected));
      continue;
    }
    const TensorInfo& info = file.info(name);
    if (tensor.sizes() != torch::IntArrayRef(info.shape)) {
      problems.add(name, " has the shape ", shape_text(info.shape), "; expected ",
                   shape_text(tensor.sizes()));
    }
    if (!is_float(info.dtype)) {
      problems.add(name, " has the type ", info.dtype, "; expected a floating type");
    }
  }
  for (const std::string& name : unexpected) {
    problems.add("unexpected ", name, suggestion(name, expected));
  }
  problems.throw_if_any();

  const torch::NoGradGuard no_grad;
  for (const auto& [name, tensor] : state) {
    torch::Tensor(tensor).copy_(file.view(name));
    file.release(name);
  }
}

PeftModel PeftModel::from_pretrained(std::shared_ptr<CausalLM> base,
                                     const std::filesystem::path& dir,
                                     bool is_trainable) {
  LORAPP_CHECK(base != nullptr, kOp, "the base model is null");
  LoraConfig config = LoraConfig::from_file(dir / kConfigName);
  config.inference_mode = !is_trainable;
  std::vector<std::pair<torch::Tensor, bool>> frozen;  // to undo it where loading fails
  for (const torch::Tensor& parameter : base->parameters()) {
    frozen.emplace_back(parameter, parameter.requires_grad());
  }
  PeftModel model(Loading{}, base, std::move(config));
  try {
    model.load_adapter_weights(dir);
  } catch (...) {
    model.unload();
    for (auto& [parameter, requires_grad] : frozen) parameter.requires_grad_(requires_grad);
    throw;
  }
  if (!is_trainable) {
    for (torch::Tensor& parameter : model.parameters()) parameter.requires_grad_(false);
    model.eval();
  }
  return model;
}

}  // namespace lorapp
