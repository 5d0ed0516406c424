// PeftModel's files: adapter_config.json, adapter_model.safetensors, README.md.
#include "adapter_card.hpp"
#include "atomic_file.hpp"
#include "build_adapter.hpp"
#include "nearest_names.hpp"
#include "nn/weight_sources.hpp"

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
constexpr const char* kAdapterWeightsName = "adapter_model.safetensors";
constexpr const char* kCardName = "README.md";
constexpr const char* kPickleName = "adapter_model.bin";

// A frozen weight that a file may hold: PEFT saves an embedding or a head beside an adapter that
// targets it, or where the vocabulary has grown.
struct OptionalWeight {
  std::string name;
  torch::Tensor parameter;
  bool adapted;
};

std::vector<OptionalWeight> optional_weights(CausalLM& base, const Adapter& adapter) {
  std::vector<OptionalWeight> weights;
  const auto add = [&](const std::string& path, const torch::Tensor& weight, bool adapted) {
    std::string name = detail::kFilePrefix + path + (adapted ? ".base_layer.weight" : ".weight");
    const bool trained = std::any_of(adapter.copies.begin(), adapter.copies.end(),
                                     [&](auto& copy) { return copy.trained && copy.name == name; });
    if (!trained) weights.push_back({std::move(name), weight, adapted});
  };
  for_each_embedding(base, [&](const std::string& path, EmbeddingImpl& embedding) {
    const bool adapted = std::any_of(adapter.embeddings.begin(), adapter.embeddings.end(),
                                     [&](auto& entry) { return entry.path == path; });
    add(path, embedding.weight(), adapted);
  });
  for_each_linear(base, [&](const std::string& path, LinearImpl& linear) {
    if (path != "lm_head" || !linear.is_dense()) return;
    const bool adapted = std::any_of(adapter.layers.begin(), adapter.layers.end(),
                                     [&](auto& entry) { return entry.path == path; });
    add(path, linear.dense_weight(), adapted);
  });
  return weights;
}

// PEFT's rule: the weights of adapted embeddings are saved where target_modules names them.
bool saves_embeddings(const LoraConfig& config) {
  if (!config.trainable_token_indices.empty()) return false;
  if (config.target_modules_regex) return true;
  return std::any_of(
      config.target_modules.begin(), config.target_modules.end(),
      [](const std::string& name) { return name == "embed_tokens" || name == "lm_head"; });
}

// What an adapter trains. While it is not in the layers, copies are apart from their parameters.
NamedTensors trained_state(const Adapter& adapter) {
  NamedTensors state = adapter.tensors;
  for (const WeightCopy& copy : adapter.copies) {
    if (copy.trained) state.emplace_back(copy.name, copy.value());
  }
  return state;
}

// Where the files of an adapter are that save_pretrained wrote to `dir`.
std::filesystem::path folder_of(const std::string& adapter, const std::filesystem::path& dir) {
  return adapter == kDefaultAdapter ? dir : dir / adapter;
}

// An Error that says where the files may be instead.
void check_folder(const std::filesystem::path& dir) {
  std::error_code error;
  if (std::filesystem::exists(dir / kConfigName, error)) return;
  std::vector<std::string> found;
  for (std::filesystem::directory_iterator entry(dir, error), end; !error && entry != end;
       entry.increment(error)) {
    std::error_code ignored;
    if (std::filesystem::exists(entry->path() / kConfigName, ignored)) {
      found.push_back(entry->path().filename().string());
    }
  }
  std::sort(found.begin(), found.end());
  LORAPP_CHECK(found.empty(), kOp, dir.string(), " has no ", kConfigName,
               " itself; there are adapters in its sub-folders ", detail::list_names(found));
}

void check_no_pickle(const std::filesystem::path& dir) {
  std::error_code ignored;
  const std::filesystem::path pickle = dir / kPickleName;
  const std::filesystem::path weights = dir / kAdapterWeightsName;
  if (std::filesystem::exists(weights, ignored) || !std::filesystem::exists(pickle, ignored)) {
    return;
  }
  detail::fail(kOp, dir.string() + " has " + kPickleName +
                        " only, a pickle, which can run code when it is read; convert it in Python "
                        "with safetensors.torch.save_file(torch.load(\"" +
                        pickle.string() + "\", weights_only=True), \"" + weights.string() +
                        "\", {\"format\": \"pt\"})");
}

// Another alpha would turn the same numbers into another model, and no shape would show it.
void check_scales(const Adapter& adapter, const std::filesystem::path& config, Problems& problems) {
  std::error_code ignored;
  if (!std::filesystem::exists(config, ignored)) return;
  const LoraConfig on_disk = LoraConfig::from_file(config);
  const auto check = [&](const std::string& path, double have) {
    const double scale = on_disk.scaling_of(path);
    if (scale != have) {
      problems.add(path, " was trained with the scale ", scale, ", and has ", have,
                   " in this model");
    }
  };
  for (const AdaptedLayer& layer : adapter.layers) check(layer.path, layer.adapter->scale());
  for (const AdaptedEmbedding& entry : adapter.embeddings) {
    check(entry.path, entry.adapter->scale());
  }
  // The same shape of rows could be those of other tokens.
  if (on_disk.trainable_token_indices != adapter.config.trainable_token_indices) {
    problems.add("its trainable_token_indices are not those of this model");
  }
}

std::string nearest(const std::string& name, const std::vector<std::string>& candidates) {
  const auto near = detail::nearest_names(name, candidates, 1);
  return near.empty() ? std::string() : "; nearest is " + near.front();
}

// Every tensor of the file that is missing, unknown or of another kind than expected.
void check_tensors(const SafetensorsFile& file,
                   const NamedTensors& state,
                   const std::vector<OptionalWeight>& optional,
                   bool head_8bit,
                   Problems& problems) {
  std::vector<std::string> expected;
  for (const auto& entry : state) expected.push_back(entry.first);
  std::set<std::string> known(expected.begin(), expected.end());
  for (const OptionalWeight& weight : optional) known.insert(weight.name);
  std::vector<std::string> unexpected;
  for (const std::string& name : file.names()) {
    if (!known.contains(name)) unexpected.push_back(name);
  }
  const auto check = [&](const std::string& name, const torch::Tensor& tensor) {
    const TensorInfo& info = file.info(name);
    if (tensor.sizes() != torch::IntArrayRef(info.shape)) {
      problems.add(name, " has the shape ", torch::IntArrayRef(info.shape), "; expected ",
                   tensor.sizes());
    }
    if (!detail::is_float(info.dtype)) {
      problems.add(name, " has the type ", info.dtype, "; expected a floating type");
    }
  };
  for (const auto& [name, tensor] : state) {
    if (file.contains(name)) {
      check(name, tensor);
    } else {
      problems.add("missing ", name, " ", tensor.sizes(), nearest(name, unexpected));
    }
  }
  for (const OptionalWeight& weight : optional) {
    if (file.contains(weight.name)) check(weight.name, weight.parameter);
  }
  for (const std::string& name : unexpected) {
    if (head_8bit && name == detail::kFilePrefix + std::string("lm_head.weight")) {
      problems.add(name,
                   " is a dense weight, which a head in 8 bits cannot take; load the base model "
                   "without head_8bit");
      continue;
    }
    problems.add("unexpected ", name,
                 name.ends_with("lora_magnitude_vector") ? "; it is DoRA's, which is not supported"
                                                         : nearest(name, expected));
  }
}

}  // namespace

NamedTensors PeftModel::adapter_state() const { return trained_state(*active_); }

void PeftModel::save_pretrained(const std::filesystem::path& dir) const {
  LORAPP_CHECK(!active_->name.empty(), kOp, dir.string(),
               ": this model has no adapters (left) to save");
  for (const auto& adapter : adapters_) save_adapter(*adapter, folder_of(adapter->name, dir));
}

void PeftModel::save_adapter(const Adapter& adapter, const std::filesystem::path& dir) const {
  std::error_code error;
  std::filesystem::create_directories(dir, error);
  LORAPP_CHECK(!error, kOp, "cannot create the folder ", dir.string(), ": ", error.message());
  NamedTensors tensors;
  for (const auto& [name, tensor] : trained_state(adapter)) {
    tensors.emplace_back(name, tensor.detach());
  }
  std::set<std::string> copied;
  for (const WeightCopy& copy : adapter.copies) {
    if (copy.trained) continue;
    copied.insert(copy.name);
    tensors.emplace_back(copy.name, copy.value().detach());
  }
  if (saves_embeddings(adapter.config)) {
    for (const OptionalWeight& weight : optional_weights(*base_, adapter)) {
      if (weight.adapted && !copied.contains(weight.name)) {
        tensors.emplace_back(weight.name, weight.parameter.detach());
      }
    }
  }
  // Written aside first, then moved: a disk that fills up leaves an adapter that was there as it
  // was, rather than new weights beside an old configuration.
  const detail::AtomicDirectory aside(dir / ".new-adapter",
                                      detail::AtomicDirectory::Existing::replace);
  write_safetensors(aside.path() / kAdapterWeightsName, tensors);
  adapter.config.save(aside.path() / kConfigName);
  detail::write_file_atomically(aside.path() / kCardName, detail::adapter_card(adapter.config));
  for (const char* name : {kAdapterWeightsName, kConfigName, kCardName}) {
    std::filesystem::rename(aside.path() / name, dir / name, error);
    LORAPP_CHECK(!error, kOp, (dir / name).string(),
                 ": cannot be given its name: ", error.message());
  }
}

void PeftModel::load_adapter_weights(const std::filesystem::path& dir) {
  LORAPP_CHECK(!is_merged(), kOp, "the adapters are merged into the weights; unmerge() first");
  const std::filesystem::path own = folder_of(active_->name, dir);
  std::error_code ignored;
  load_tensors(*active_, std::filesystem::exists(own / kAdapterWeightsName, ignored) ? own : dir);
}

void PeftModel::load_tensors(Adapter& adapter, const std::filesystem::path& dir) {
  check_no_pickle(dir);
  const std::filesystem::path path = dir / kAdapterWeightsName;
  const SafetensorsFile file = SafetensorsFile::open(path);
  const NamedTensors state = trained_state(adapter);
  const std::vector<OptionalWeight> optional = optional_weights(*base_, adapter);
  Problems problems(kOp, path.string());
  check_scales(adapter, dir / kConfigName, problems);
  bool head_8bit = false;
  for_each_linear(*base_, [&](const std::string& layer, LinearImpl& linear) {
    head_8bit = head_8bit || (layer == "lm_head" && linear.is_int8());
  });
  check_tensors(file, state, optional, head_8bit, problems);
  problems.throw_if_any();

  const torch::NoGradGuard no_grad;
  for (const auto& [name, tensor] : state) {
    torch::Tensor(tensor).copy_(file.view(name));
    file.release(name);
  }
  for (const OptionalWeight& weight : optional) {
    if (!file.contains(weight.name)) continue;
    const torch::Tensor value = file.view(weight.name);
    const auto known = std::find_if(adapter.copies.begin(), adapter.copies.end(),
                                    [&](auto& copy) { return copy.name == weight.name; });
    if (known != adapter.copies.end()) {
      torch::Tensor(known->value()).copy_(value);
    } else if (!value.to(weight.parameter.options()).equal(weight.parameter)) {
      WeightCopy copy{weight.name, weight.parameter,
                      torch::empty_like(weight.parameter).copy_(value), /*trained=*/false};
      if (&adapter == active_ && enabled_) copy.swap();
      adapter.copies.push_back(std::move(copy));
    }
    file.release(weight.name);
  }
}

PeftModel PeftModel::from_pretrained(std::shared_ptr<CausalLM> base,
                                     const std::filesystem::path& dir,
                                     bool is_trainable,
                                     const std::string& adapter_name) {
  LORAPP_CHECK(base != nullptr, kOp, "the base model is null");
  check_folder(dir);
  LoraConfig config = LoraConfig::from_file(dir / kConfigName);
  config.inference_mode = !is_trainable;
  std::vector<std::pair<torch::Tensor, bool>> frozen;  // to undo it where loading fails
  for (const torch::Tensor& parameter : base->parameters()) {
    frozen.emplace_back(parameter, parameter.requires_grad());
  }
  PeftModel model(Loading{}, base, std::move(config), adapter_name);
  try {
    model.load_tensors(*model.active_, dir);
  } catch (...) {
    model.unload();
    for (auto& [parameter, requires_grad] : frozen) parameter.requires_grad_(requires_grad);
    throw;
  }
  if (!is_trainable) {
    model.active_->set_trainable(false);
    model.eval();
  }
  return model;
}

void PeftModel::load_adapter(const std::filesystem::path& dir,
                             const std::string& name,
                             bool is_trainable) {
  check_folder(dir);
  LoraConfig config = LoraConfig::from_file(dir / kConfigName);
  config.inference_mode = !is_trainable;
  Adapter& adapter = add(name, std::move(config), /*seed=*/0, /*must_match=*/false);
  try {
    load_tensors(adapter, dir);
  } catch (...) {
    delete_adapter(name);
    throw;
  }
  adapter.set_trainable(is_trainable);
}

}  // namespace lorapp
