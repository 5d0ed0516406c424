// MLX adapters: adapters.safetensors and adapter_config.json.
#include "atomic_file.hpp"
#include "json_file.hpp"
#include "nearest_names.hpp"

#include <lorapp/error.hpp>
#include <lorapp/io/safetensors.hpp>
#include <lorapp/peft/convert.hpp>

#include "plain_lora.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

namespace lorapp {

namespace {

using nlohmann::json;

constexpr const char* kOp = "mlx_adapter";
constexpr const char* kConfigName = "adapter_config.json";
constexpr const char* kWeightsName = "adapters.safetensors";

// "model.layers.3.self_attn.q_proj" → {3, "self_attn.q_proj"}; else {-1, path}. In MLX a key is
// relative to its layer.
std::pair<std::int64_t, std::string> split_layer(const std::string& path) {
  constexpr std::string_view kLayers = "model.layers.";
  if (!path.starts_with(kLayers)) return {-1, path};
  const std::size_t dot = path.find('.', kLayers.size());
  if (dot == std::string::npos) return {-1, path};
  return {std::stoll(path.substr(kLayers.size(), dot - kLayers.size())), path.substr(dot + 1)};
}

torch::Tensor padded(const torch::Tensor& tensor, std::int64_t dim, std::int64_t size) {
  const std::int64_t missing = size - tensor.size(dim);
  if (missing == 0) return tensor;
  std::vector<std::int64_t> shape = tensor.sizes().vec();
  shape[static_cast<std::size_t>(dim)] = missing;
  return torch::cat({tensor, torch::zeros(shape, tensor.options())}, dim);
}

}  // namespace

void save_mlx_adapter(const PeftModel& model, const std::filesystem::path& dir) {
  const torch::NoGradGuard no_grad;
  const std::vector<detail::PlainLora> loras = detail::plain_loras(model, kOp);
  std::int64_t rank = 0;
  for (const auto& lora : loras) rank = std::max(rank, lora.a.size(0));
  const double scale = loras.front().scale;
  const std::int64_t layers = model.config().num_hidden_layers;
  std::int64_t first_layer = layers;
  std::set<std::string> keys;
  NamedTensors tensors;
  for (const auto& lora : loras) {
    const auto [layer, key] = split_layer(lora.path);
    if (layer >= 0) first_layer = std::min(first_layer, layer);
    keys.insert(key);
    const double factor = lora.scale / scale;
    const torch::Tensor b = factor == 1 ? lora.b : lora.b * factor;
    tensors.emplace_back(lora.path + ".lora_a", padded(lora.a, 0, rank).t().contiguous());
    tensors.emplace_back(lora.path + ".lora_b", padded(b, 1, rank).t().contiguous());
  }
  const json config = {{"fine_tune_type", "lora"},
                       {"lora_parameters",
                        {{"dropout", model.peft_config().lora_dropout},
                         {"keys", keys},
                         {"rank", rank},
                         {"scale", scale}}},
                       {"num_layers", layers - first_layer}};
  std::error_code error;
  std::filesystem::create_directories(dir, error);
  LORAPP_CHECK(!error, kOp, "cannot create the folder ", dir.string(), ": ", error.message());
  write_safetensors(dir / kWeightsName, tensors, {{"format", "mlx"}});
  detail::write_json_file(dir / kConfigName, config);
}

PeftModel load_mlx_adapter(std::shared_ptr<CausalLM> base,
                           const std::filesystem::path& dir,
                           bool is_trainable) {
  LORAPP_CHECK(base != nullptr, kOp, "the base model is null");
  const json object = detail::read_json_object(dir / kConfigName, kOp);
  LORAPP_CHECK(!object.contains("peft_type"), kOp, (dir / kConfigName).string(),
               ": this is PEFT's adapter; PeftModel::from_pretrained reads it");
  Problems problems(kOp, (dir / kConfigName).string());
  const std::string type = detail::get_string_or(object, "fine_tune_type", problems, "lora");
  if (type != "lora") {
    problems.add("fine_tune_type is \"", type, "\"; only \"lora\" is supported");
  }
  LoraConfig config;
  if (const json* parameters = detail::find_object(object, "lora_parameters", problems)) {
    config.r = detail::get_int(*parameters, "rank", problems, 1);
    config.lora_alpha =
        detail::get_double(*parameters, "scale", problems) * static_cast<double>(config.r);
    config.lora_dropout = detail::get_double_or(*parameters, "dropout", problems, 0);
  } else if (problems.empty()) {
    problems.add("lora_parameters is missing");
  }
  problems.throw_if_any();

  // The layers are those that have tensors; layers that MLX left as they were have none.
  const SafetensorsFile file = SafetensorsFile::open(dir / kWeightsName);
  Problems tensors(kOp, (dir / kWeightsName).string());
  std::set<std::string> paths;
  for (const std::string& name : file.names()) {
    const bool is_lora = name.ends_with(".lora_a") || name.ends_with(".lora_b");
    if (is_lora) {
      paths.insert(name.substr(0, name.rfind('.')));
    } else {
      tensors.add("unexpected ", name,
                  name.ends_with(".m") ? "; it is DoRA's, which is not supported" : "");
    }
  }
  if (paths.empty()) tensors.add("there is no lora_a");
  tensors.throw_if_any();
  config.target_modules.assign(paths.begin(), paths.end());
  config.inference_mode = !is_trainable;

  std::vector<std::pair<torch::Tensor, bool>> frozen;  // to undo it where loading fails
  for (const torch::Tensor& parameter : base->parameters()) {
    frozen.emplace_back(parameter, parameter.requires_grad());
  }
  PeftModel model(base, config);
  try {
    for (const detail::PlainLora& lora : detail::plain_loras(model, kOp)) {
      for (const auto& [leaf, part] : {std::pair("lora_a", lora.a), std::pair("lora_b", lora.b)}) {
        const std::string name = lora.path + "." + leaf;
        const std::vector<std::int64_t> shape = {part.size(1), part.size(0)};
        if (!file.contains(name)) {
          tensors.add("missing ", name);
        } else if (file.info(name).shape != shape) {
          tensors.add(name, " has the shape ", torch::IntArrayRef(file.info(name).shape),
                      "; expected ", torch::IntArrayRef(shape));
        }
      }
    }
    tensors.throw_if_any();
    const torch::NoGradGuard no_grad;
    for (const detail::PlainLora& lora : detail::plain_loras(model, kOp)) {
      torch::Tensor(lora.a).copy_(file.view(lora.path + ".lora_a").t());
      torch::Tensor(lora.b).copy_(file.view(lora.path + ".lora_b").t());
    }
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
