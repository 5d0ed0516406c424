// PeftModel: attaching adapters, what is trainable, merging.
#include "nearest_names.hpp"

#include <lorapp/error.hpp>
#include <lorapp/nn/traverse.hpp>
#include <lorapp/peft/module_pattern.hpp>
#include <lorapp/peft/peft_model.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <ostream>
#include <set>
#include <string_view>
#include <utility>

namespace lorapp {

namespace {

constexpr const char* kOp = "peft_model";

std::string last_part(const std::string& path) { return path.substr(path.rfind('.') + 1); }

// "6,815,744", whatever the locale.
std::string with_commas(std::int64_t number) {
  std::string text = std::to_string(number);
  for (std::ptrdiff_t i = std::ssize(text) - 3; i > 0; i -= 3) {
    text.insert(static_cast<std::size_t>(i), ",");
  }
  return text;
}

// One Error with every name that matches nothing, the nearest names, and what there is.
void check_targets(const LoraConfig& config,
                   const std::vector<std::string>& paths,
                   const TargetMatch& match,
                   bool every_target_must_match) {
  std::vector<std::string> kinds;
  for (const std::string& path : paths) kinds.push_back(last_part(path));
  std::sort(kinds.begin(), kinds.end());
  kinds.erase(std::unique(kinds.begin(), kinds.end()), kinds.end());
  const std::string available = "; its Linear layers are named " + detail::list_names(kinds);

  Problems problems(kOp, "target_modules");
  if (every_target_must_match || match.indices.empty()) {
    for (const std::string& name : match.unmatched) {
      const std::vector<std::string> near =
          detail::nearest_names(name, name.find('.') == std::string::npos ? kinds : paths);
      problems.add("no Linear layer of the model is named \"", name, "\"",
                   near.empty() ? "" : "; did you mean ", detail::list_names(near),
                   near.empty() ? "" : "?", available);
    }
  }
  if (problems.empty() && match.indices.empty()) {
    problems.add(config.target_modules_regex
                     ? "the regular expression \"" + *config.target_modules_regex +
                           "\" matches no Linear layer of the model"
                     : std::string("exclude_modules, layers_to_transform and layers_pattern leave "
                                   "no Linear layer of the model"),
                 available, paths.empty() ? "" : "; the first path is " + paths.front());
  }
  problems.throw_if_any();
}

}  // namespace

PeftModel::PeftModel(std::shared_ptr<CausalLM> base, LoraConfig config, std::uint64_t seed)
    : base_(std::move(base)), config_(std::move(config)) {
  attach(seed, /*every_target_must_match=*/true);
}

// Any seed will do: every value is replaced by the file's.
PeftModel::PeftModel(Loading, std::shared_ptr<CausalLM> base, LoraConfig config)
    : base_(std::move(base)), config_(std::move(config)) {
  attach(/*seed=*/0, /*every_target_must_match=*/false);
}

PeftModel::~PeftModel() = default;

void PeftModel::attach(std::uint64_t seed, bool every_target_must_match) {
  LORAPP_CHECK(base_ != nullptr, kOp, "the base model is null");
  config_.validate();
  std::vector<std::string> paths;
  std::vector<LinearImpl*> linears;
  std::ptrdiff_t head = -1;
  for_each_linear(*base_, [&](const std::string& path, LinearImpl& linear) {
    LORAPP_CHECK(linear.adapter() == nullptr, kOp, path,
                 " has an adapter already; unload() it first");
    LORAPP_CHECK(linear.has_weight(), kOp, path, " has no weight yet");
    // CausalLM's head is not inside the decoder, and its name is Hugging Face's.
    if (path == "lm_head") head = std::ssize(paths);
    paths.push_back(path);
    linears.push_back(&linear);
  });
  const TargetMatch match = match_targets(config_, paths, head);
  check_targets(config_, paths, match, every_target_must_match);

  for (torch::Tensor& parameter : base_->parameters()) parameter.requires_grad_(false);
  for (const std::size_t i : match.indices) {
    LinearImpl& linear = *linears[i];
    const torch::Device device = linear.is_quantized() ? linear.quantized().codes().device()
                                                       : linear.dense_weight().device();
    auto adapter =
        std::make_shared<LoraAdapter>(LoraAdapter::Options{.in_features = linear.in_features(),
                                                           .out_features = linear.out_features(),
                                                           .r = config_.rank_of(paths[i]),
                                                           .scale = config_.scaling_of(paths[i]),
                                                           .dropout = config_.lora_dropout,
                                                           .init = config_.init_lora_weights,
                                                           .seed = seed,
                                                           .index = layers_.size(),
                                                           .device = device});
    adapter->train(linear.is_training());
    linear.attach(adapter);
    layers_.push_back({paths[i], &linear, std::move(adapter)});
  }
  if (targets_all_linear(config_)) {
    // What is saved is what the word meant here, so that a reader need not know it.
    std::set<std::string> names;
    for (const AdaptedLayer& layer : layers_) names.insert(last_part(layer.path));
    config_.target_modules.assign(names.begin(), names.end());
    if (match_targets(config_, paths, head).indices != match.indices) {
      config_.target_modules.clear();
      for (const AdaptedLayer& layer : layers_) config_.target_modules.push_back(layer.path);
    }
  }
  if (config_.base_model_name_or_path.empty()) {
    config_.base_model_name_or_path = base_->name_or_path();
  }
  train_biases();
  register_module("base", base_);
  torch::nn::Module::train(base_->is_training());
}

// PEFT: "all" trains every bias of the model, "lora_only" those of the adapted layers.
void PeftModel::train_biases() {
  if (config_.bias == "none") return;
  for_each_linear(*base_, [this](const std::string& path, LinearImpl& linear) {
    if (!linear.bias().defined()) return;
    const bool adapted = linear.adapter() != nullptr;
    if (config_.bias == "lora_only" && !adapted) return;
    torch::Tensor bias = linear.bias();
    bias.requires_grad_(true);
    biases_.emplace_back("base_model.model." + path + (adapted ? ".base_layer.bias" : ".bias"),
                         std::move(bias));
  });
}

ParameterCounts PeftModel::trainable_parameters() const {
  ParameterCounts counts;
  counts.all = num_parameters(*base_);
  for (const torch::Tensor& parameter : base_->parameters()) {
    if (parameter.requires_grad()) counts.trainable += parameter.numel();
  }
  return counts;
}

void PeftModel::print_trainable_parameters(std::ostream& out) const {
  const ParameterCounts counts = trainable_parameters();
  std::array<char, 32> percent;
  const auto end = std::to_chars(percent.data(), percent.data() + percent.size(), counts.percent(),
                                 std::chars_format::fixed, 4);
  out << "trainable params: " + with_commas(counts.trainable) +
             " || all params: " + with_commas(counts.all) +
             " || trainable%: " + std::string(percent.data(), end.ptr) + "\n";
}

void PeftModel::set_adapter_enabled(bool enabled) {
  LORAPP_CHECK(!is_merged(), kOp, "the adapters are merged into the weights; unmerge() before ",
               enabled ? "enabling" : "disabling", " them");
  for (const AdaptedLayer& layer : layers_) layer.linear->set_adapter_enabled(enabled);
  enabled_ = enabled;
}

void PeftModel::add_updates(bool keep_weights) {
  LORAPP_CHECK(!is_merged(), kOp, "the adapters are merged already");
  Problems problems(kOp, "merge");
  for (const AdaptedLayer& layer : layers_) {
    if (layer.linear->is_quantized()) {
      problems.add(layer.path,
                   " has a 4-bit weight, which cannot take an update without being quantized anew; "
                   "load the base model without quantization to merge");
      break;  // the others say the same
    }
    if (!layer.linear->named_parameters(/*recurse=*/false).contains("weight")) {
      problems.add(
          layer.path,
          " shares its weight with the embedding of the tokens, which would take its update "
          "too; keep the adapter apart");
    }
  }
  problems.throw_if_any();

  const torch::NoGradGuard no_grad;
  for (const AdaptedLayer& layer : layers_) {
    torch::Tensor weight = layer.linear->dense_weight();
    if (keep_weights) merged_.push_back(weight.clone());
    weight.add_(layer.adapter->delta_weight());
  }
  for (const AdaptedLayer& layer : layers_) layer.linear->set_adapter_enabled(false);
  enabled_ = false;
}

void PeftModel::merge() { add_updates(/*keep_weights=*/true); }

void PeftModel::unmerge() {
  LORAPP_CHECK(is_merged(), kOp, "the adapters are not merged");
  const torch::NoGradGuard no_grad;
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    layers_[i].linear->dense_weight().copy_(merged_[i]);
  }
  merged_.clear();
  set_adapter_enabled(true);
}

std::shared_ptr<CausalLM> PeftModel::unload() {
  if (is_merged()) unmerge();
  for (const AdaptedLayer& layer : layers_) layer.linear->detach_adapter();
  layers_.clear();
  for (auto& [name, bias] : biases_) bias.requires_grad_(false);
  biases_.clear();
  return base_;
}

std::shared_ptr<CausalLM> PeftModel::merge_and_unload() {
  if (!is_merged()) add_updates(/*keep_weights=*/false);
  merged_.clear();  // so that unload() leaves the sums in place
  return unload();
}

}  // namespace lorapp
