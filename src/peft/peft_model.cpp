// PeftModel: its adapters and which of them is active, what is trainable, merging.
#include "build_adapter.hpp"
#include "nearest_names.hpp"

#include <lorapp/error.hpp>
#include <lorapp/nn/traverse.hpp>
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

// "6,815,744", whatever the locale.
std::string with_commas(std::int64_t number) {
  std::string text = std::to_string(number);
  for (std::ptrdiff_t i = std::ssize(text) - 3; i > 0; i -= 3) {
    text.insert(static_cast<std::size_t>(i), ",");
  }
  return text;
}

// PEFT's names are those of PyTorch modules, and folders.
void check_name(const std::string& name, const std::vector<std::unique_ptr<Adapter>>& adapters) {
  LORAPP_CHECK(!name.empty() && name.find_first_of("./\\") == std::string::npos, kOp, "\"", name,
               "\" is no name for an adapter; expected one without dots and slashes");
  for (const auto& adapter : adapters) {
    LORAPP_CHECK(adapter->name != name, kOp, "there is an adapter \"", name, "\" already");
  }
}

}  // namespace

PeftModel::PeftModel(std::shared_ptr<CausalLM> base, LoraConfig config, std::uint64_t seed)
    : base_(std::move(base)) {
  start(kDefaultAdapter, std::move(config), seed, /*must_match=*/true);
}

// Any seed will do: every value is replaced by the file's.
PeftModel::PeftModel(Loading,
                     std::shared_ptr<CausalLM> base,
                     LoraConfig config,
                     const std::string& name)
    : base_(std::move(base)) {
  start(name, std::move(config), /*seed=*/0, /*must_match=*/false);
}

PeftModel::~PeftModel() = default;

void PeftModel::start(const std::string& name,
                      LoraConfig config,
                      std::uint64_t seed,
                      bool must_match) {
  LORAPP_CHECK(base_ != nullptr, kOp, "the base model is null");
  const auto check_free = [](const std::string& path, const auto& layer) {
    LORAPP_CHECK(layer.adapter() == nullptr, kOp, path,
                 " has an adapter already; unload() it first");
  };
  for_each_linear(*base_, check_free);
  for_each_embedding(*base_, check_free);
  std::vector<bool> trained;
  for (torch::Tensor& parameter : base_->parameters()) {
    trained.push_back(parameter.requires_grad());
    parameter.requires_grad_(false);
  }
  try {
    active_ = &add(name, std::move(config), seed, must_match);
  } catch (...) {
    std::size_t i = 0;
    for (torch::Tensor& parameter : base_->parameters()) parameter.requires_grad_(trained[i++]);
    throw;
  }
  active_->activate();
  register_module("base", base_);
  torch::nn::Module::train(base_->is_training());
}

Adapter& PeftModel::add(const std::string& name,
                        LoraConfig config,
                        std::uint64_t seed,
                        bool must_match) {
  check_name(name, adapters_);
  LORAPP_CHECK(!is_merged(), kOp, "the adapters are merged into the weights; unmerge() first");
  if (!adapters_.empty()) {
    // As PEFT: biases of the base are trained in place, so they would be everyone's.
    bool biases = config.bias != "none";
    for (const auto& adapter : adapters_) biases = biases || adapter->config.bias != "none";
    LORAPP_CHECK(!biases, kOp, "an adapter that trains the base's biases must be the only one");
  }
  detail::UntiedHead untied{untied_head_, untied_embedding_};
  if (active_ != nullptr) active_->deactivate();
  std::unique_ptr<Adapter> adapter;
  try {
    adapter = std::make_unique<Adapter>(
        detail::build_adapter(*base_, name, std::move(config), seed, must_match, untied));
  } catch (...) {
    if (active_ != nullptr) set_adapter(active_->name);
    throw;
  }
  untied_head_ = untied.head;
  untied_embedding_ = untied.embedding;
  adapters_.push_back(std::move(adapter));
  if (active_ != nullptr) set_adapter(active_->name);
  return *adapters_.back();
}

void PeftModel::add_adapter(const std::string& name, LoraConfig config, std::uint64_t seed) {
  add(name, std::move(config), seed, /*must_match=*/true);
}

Adapter& PeftModel::find(const std::string& name) const {
  for (const auto& adapter : adapters_) {
    if (adapter->name == name) return *adapter;
  }
  detail::fail(kOp, "there is no adapter \"" + name + "\"; there are " +
                        detail::list_names(adapter_names()));
}

std::vector<std::string> PeftModel::adapter_names() const {
  std::vector<std::string> names;
  for (const auto& adapter : adapters_) names.push_back(adapter->name);
  return names;
}

void PeftModel::set_adapter(const std::string& name) {
  Adapter& next = find(name);
  LORAPP_CHECK(!is_merged(), kOp, "the adapters are merged into the weights; unmerge() first");
  active_->deactivate();
  active_ = &next;
  active_->activate();
  for (const auto& slot : active_->linear_slots) slot.adapter->train(is_training());
  for (const auto& slot : active_->embedding_slots) slot.adapter->train(is_training());
  if (!enabled_) set_adapter_enabled(false);
}

void PeftModel::delete_adapter(const std::string& name) {
  const Adapter& adapter = find(name);
  LORAPP_CHECK(&adapter != active_, kOp, "\"", name,
               "\" is the active adapter; set_adapter() another one first");
  std::erase_if(adapters_, [&](const auto& entry) { return entry.get() == &adapter; });
}

ParameterCounts PeftModel::trainable_parameters() const {
  ParameterCounts counts;
  counts.all = num_parameters(*base_);
  std::set<const void*> counted;
  for (const torch::Tensor& parameter : base_->parameters()) {
    counted.insert(parameter.const_data_ptr());
    if (parameter.requires_grad()) counts.trainable += parameter.numel();
  }
  // What is not in the layers now: values that copies stand in for, and other adapters.
  const auto count = [&](const torch::Tensor& tensor) {
    if (counted.insert(tensor.const_data_ptr()).second) counts.all += tensor.numel();
  };
  for (const auto& adapter : adapters_) {
    for (const WeightCopy& copy : adapter->copies) count(copy.other);
    if (adapter.get() == active_) continue;
    for (const auto& [name, tensor] : adapter->tensors) count(tensor);
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
  active_->enable_slots(enabled);
  active_->use_copies(enabled);
  enabled_ = enabled;
}

void PeftModel::add_updates(bool keep_weights) {
  LORAPP_CHECK(!is_merged(), kOp, "the adapters are merged already");
  Problems problems(kOp, "merge");
  const auto owns_weight = [](const auto& layer) {
    return layer.named_parameters(/*recurse=*/false).contains("weight");
  };
  std::set<const void*> tied;  // tables that a head reads too
  for_each_linear(*base_, [&](const std::string&, LinearImpl& linear) {
    if (linear.is_dense() && !owns_weight(linear)) {
      tied.insert(linear.dense_weight().const_data_ptr());
    }
  });
  for (const auto& slot : active_->linear_slots) {
    if (slot.shared) continue;
    if (!slot.layer->is_dense()) {
      problems.add(slot.path, slot.layer->is_int8() ? " has an 8-bit" : " has a 4-bit",
                   " weight, which cannot take an update without being quantized anew; "
                   "load the base model without quantization to merge");
      break;  // the others say the same
    }
    if (!owns_weight(*slot.layer)) {
      problems.add(
          slot.path,
          " shares its weight with the embedding of the tokens, which would take its update "
          "too; keep the adapter apart");
    }
    if (slot.adapter->delta_bias().defined() && !slot.layer->bias().defined()) {
      problems.add(slot.path, " has no bias that could take the adapter's (lora_bias)");
    }
  }
  for (const AdaptedEmbedding& entry : active_->embeddings) {
    if (tied.contains(entry.embedding->weight().const_data_ptr())) {
      problems.add(entry.path,
                   " shares its weight with the head, which would take its update too; keep the "
                   "adapter apart");
    }
  }
  problems.throw_if_any();

  active_->use_copies(true);
  const torch::NoGradGuard no_grad;
  const auto keep = [&](const torch::Tensor& weight) {
    if (keep_weights) merged_.emplace_back(weight, weight.clone());
  };
  for (const auto& slot : active_->linear_slots) {
    if (slot.shared) continue;
    torch::Tensor weight = slot.layer->dense_weight();
    keep(weight);
    weight.add_(slot.adapter->delta_weight());
    const torch::Tensor delta_bias = slot.adapter->delta_bias();
    if (!delta_bias.defined()) continue;
    torch::Tensor bias = slot.layer->bias();
    keep(bias);
    bias.add_(delta_bias);
  }
  for (const auto& slot : active_->embedding_slots) {
    torch::Tensor weight = slot.layer->weight();
    keep(weight);
    slot.adapter->merge_into(weight);
  }
  active_->enable_slots(false);
  enabled_ = false;
}

void PeftModel::merge() { add_updates(/*keep_weights=*/true); }

void PeftModel::unmerge() {
  LORAPP_CHECK(is_merged(), kOp, "the adapters are not merged");
  const torch::NoGradGuard no_grad;
  for (auto& [weight, before] : merged_) weight.copy_(before);
  merged_.clear();
  set_adapter_enabled(true);
}

std::shared_ptr<CausalLM> PeftModel::unload() {
  if (is_merged()) unmerge();
  active_->deactivate();
  for (const auto& adapter : adapters_) {
    for (auto& [name, tensor] : adapter->tensors) tensor.requires_grad_(false);
  }
  detail::UntiedHead{untied_head_, untied_embedding_}.tie();
  untied_head_ = nullptr;
  untied_embedding_ = nullptr;
  adapters_.clear();
  adapters_.push_back(std::make_unique<Adapter>());
  active_ = adapters_.front().get();
  return base_;
}

std::shared_ptr<CausalLM> PeftModel::merge_and_unload() {
  LORAPP_CHECK(untied_head_ == nullptr, kOp,
               "modules_to_save gave the tied head and the embedding values of their own, which a "
               "model with tie_word_embeddings cannot keep");
  if (!is_merged()) add_updates(/*keep_weights=*/false);
  merged_.clear();
  // So that unload() leaves the sums and the copies in place.
  for (WeightCopy& copy : active_->copies) copy.parameter.requires_grad_(false);
  active_->copies.clear();
  return unload();
}

}  // namespace lorapp
