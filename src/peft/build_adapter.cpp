#include "build_adapter.hpp"

#include "nearest_names.hpp"

#include <lorapp/error.hpp>
#include <lorapp/nn/traverse.hpp>
#include <lorapp/peft/module_pattern.hpp>
#include <lorapp/peft/trainable_tokens.hpp>

#include <algorithm>
#include <set>
#include <utility>

namespace lorapp::detail {

namespace {

constexpr const char* kOp = "peft_model";
// Random numbers of an embedding's adapter are apart from those of any Linear's.
constexpr std::uint64_t kFirstEmbeddingIndex = std::uint64_t{1} << 32;

std::string last_part(const std::string& path) { return path.substr(path.rfind('.') + 1); }

/// The layers of a model that adapters may sit in, under one numbering.
struct Layers {
  std::vector<std::string> paths;
  std::vector<LinearImpl*> linears;        // null where the layer is an Embedding
  std::vector<EmbeddingImpl*> embeddings;  // null where it is a Linear
  std::vector<std::size_t> aside;          // what "all-linear" leaves out

  explicit Layers(CausalLM& base) {
    for_each_linear(base, [&](const std::string& path, LinearImpl& linear) {
      LORAPP_CHECK(linear.has_weight(), kOp, path, " has no weight yet");
      // CausalLM's head is not inside the decoder, and its name is Hugging Face's.
      if (path == "lm_head") aside.push_back(paths.size());
      add(path, &linear, nullptr);
    });
    for_each_embedding(base, [&](const std::string& path, EmbeddingImpl& embedding) {
      LORAPP_CHECK(embedding.weight().defined(), kOp, path, " has no weight yet");
      aside.push_back(paths.size());
      add(path, nullptr, &embedding);
    });
  }

  // The head that reads an embedding's table, if there is one.
  UntiedHead tied() const {
    for (LinearImpl* head : linears) {
      if (head == nullptr || !head->is_dense()) continue;
      for (EmbeddingImpl* embedding : embeddings) {
        if (embedding != nullptr && head->dense_weight().is_same(embedding->weight())) {
          return {head, embedding};
        }
      }
    }
    return {};
  }

  std::string path_of(const EmbeddingImpl* embedding) const {
    const auto at = std::find(embeddings.begin(), embeddings.end(), embedding);
    return paths[static_cast<std::size_t>(at - embeddings.begin())];
  }

 private:
  void add(const std::string& path, LinearImpl* linear, EmbeddingImpl* embedding) {
    paths.push_back(path);
    linears.push_back(linear);
    embeddings.push_back(embedding);
  }
};

/// A problem that names what there is: "no … is named "x"; did you mean …?; …".
void add_unknown(Problems& problems,
                 const std::string& what,
                 const std::string& name,
                 const std::vector<std::string>& candidates,
                 const std::string& available) {
  const std::vector<std::string> near = nearest_names(name, candidates);
  problems.add("no ", what, " of the model is named \"", name, "\"",
               near.empty() ? "" : "; did you mean ", list_names(near), near.empty() ? "" : "?",
               available);
}

// Every name that matches nothing, the nearest names, and what there is.
void check_targets(const LoraConfig& config,
                   const Layers& layers,
                   const TargetMatch& match,
                   bool every_target_must_match) {
  std::set<std::string> linear_kinds, kinds;
  for (std::size_t i = 0; i < layers.paths.size(); ++i) {
    kinds.insert(last_part(layers.paths[i]));
    if (layers.linears[i] != nullptr) linear_kinds.insert(last_part(layers.paths[i]));
  }
  const std::vector<std::string> kind_list(kinds.begin(), kinds.end());
  const std::string available =
      "; its Linear layers are named " + list_names({linear_kinds.begin(), linear_kinds.end()});

  Problems problems(kOp, "target_modules");
  if (every_target_must_match || match.indices.empty()) {
    for (const std::string& name : match.unmatched) {
      add_unknown(problems, "Linear layer", name,
                  name.find('.') == std::string::npos ? kind_list : layers.paths, available);
    }
  }
  if (problems.empty() && match.indices.empty()) {
    problems.add(config.target_modules_regex
                     ? "the regular expression \"" + *config.target_modules_regex +
                           "\" matches no Linear layer of the model"
                     : std::string("exclude_modules, layers_to_transform and layers_pattern leave "
                                   "no Linear layer of the model"),
                 available, layers.paths.empty() ? "" : "; the first path is " + layers.paths[0]);
  }
  problems.throw_if_any();
}

// modules_to_save must name something that can be trained whole and has no adapter of its own.
void check_saved(CausalLM& base,
                 const LoraConfig& config,
                 const Layers& layers,
                 const TargetMatch& match,
                 bool every_target_must_match) {
  Problems problems(kOp, "modules_to_save");
  std::vector<std::string> modules;
  std::set<std::string> kinds;
  for (const auto& module : base.named_modules("", /*include_self=*/false)) {
    modules.push_back(module.key());
    const std::string kind = last_part(module.key());
    if (kind.find_first_not_of("0123456789") != std::string::npos) kinds.insert(kind);
  }
  const std::vector<std::string> kind_list(kinds.begin(), kinds.end());
  for (const std::string& name : config.modules_to_save) {
    const bool found = std::any_of(modules.begin(), modules.end(),
                                   [&](const auto& path) { return path.ends_with(name); });
    if (!found && every_target_must_match) {
      add_unknown(problems, "module", name, kind_list,
                  "; its modules are named " + list_names(kind_list));
    }
  }
  for (const std::size_t i : match.indices) {
    if (is_saved_whole(config, layers.paths[i])) {
      problems.add(layers.paths[i], " is among the target_modules too");
    }
  }
  for (std::size_t i = 0; i < layers.paths.size(); ++i) {
    if (layers.linears[i] != nullptr && layers.linears[i]->is_quantized() &&
        is_saved_whole(config, layers.paths[i])) {
      problems.add(layers.paths[i],
                   " has a 4-bit weight, which cannot be trained; leave the module out or load the "
                   "base model without quantization");
      break;  // the others say the same
    }
  }
  problems.throw_if_any();
}

// A weight in 8 bits cannot be trained, and an adapter of the head is saved with its dense weight:
// what needs one, all in one Error.
void check_8bit(const LoraConfig& config, const Layers& layers, const TargetMatch& match) {
  Problems problems(kOp, "a weight in 8 bits");
  const auto contains = [](const std::vector<std::size_t>& indices, std::size_t i) {
    return std::find(indices.begin(), indices.end(), i) != indices.end();
  };
  for (std::size_t i = 0; i < layers.paths.size(); ++i) {
    if (layers.linears[i] == nullptr || !layers.linears[i]->is_int8()) continue;
    const std::string& path = layers.paths[i];
    const auto refuse = [&](const std::string& option, const std::string& named) {
      problems.add(option, " names ", named, ", which needs the dense weight of ", path,
                   "; leave it out or load the base model with a dense head");
    };
    if (is_saved_whole(config, path)) refuse("modules_to_save", path);
    if (!contains(layers.aside, i)) continue;
    if (contains(match.indices, i)) refuse("target_modules", path);
    for (const auto& [name, ids] : config.trainable_token_indices) {
      if (!name.empty() && path.ends_with(name)) refuse("trainable_token_indices", path);
      if (!layers.linears[i]->int8_is_copy()) continue;
      for (const std::size_t j : layers.aside) {
        const bool is_named = name.empty() || layers.paths[j].ends_with(name);
        if (layers.embeddings[j] == nullptr || !is_named) continue;
        refuse("trainable_token_indices", layers.paths[j]);
      }
    }
  }
  problems.throw_if_any();
}

// The layer that each key of trainable_token_indices means, by index.
std::vector<std::pair<std::size_t, std::vector<std::int64_t>>> token_layers(
    const LoraConfig& config, const Layers& layers, const TargetMatch& match) {
  std::vector<std::pair<std::size_t, std::vector<std::int64_t>>> found;
  Problems problems(kOp, "trainable_token_indices");
  for (const auto& [name, ids] : config.trainable_token_indices) {
    std::size_t count = 0;
    for (const std::size_t i : layers.aside) {
      const std::string& path = layers.paths[i];
      if (name.empty() ? layers.embeddings[i] == nullptr : !path.ends_with(name)) continue;
      ++count;
      found.emplace_back(i, ids);
      const std::int64_t vocab = layers.embeddings[i] != nullptr
                                     ? layers.embeddings[i]->rows()
                                     : layers.linears[i]->out_features();
      for (const std::int64_t id : ids) {
        if (id >= vocab) problems.add("token id ", id, " is outside the vocabulary of ", vocab);
      }
      if (is_saved_whole(config, path)) problems.add(path, " is in modules_to_save too");
      if (std::find(match.indices.begin(), match.indices.end(), i) != match.indices.end()) {
        problems.add(path, " is among the target_modules too");
      }
      if (layers.linears[i] != nullptr && layers.linears[i]->is_quantized()) {
        problems.add(path, " has a 4-bit weight, whose rows cannot be trained");
      }
    }
    if (count == 0) {
      std::vector<std::string> paths;
      for (const std::size_t i : layers.aside) paths.push_back(layers.paths[i]);
      problems.add("no embedding of the model is named \"", name, "\"; there are ",
                   list_names(paths));
    }
  }
  problems.throw_if_any();
  return found;
}

void add_lora(Adapter& adapter,
              const Layers& layers,
              const std::vector<std::size_t>& indices,
              std::uint64_t seed) {
  const LoraConfig& config = adapter.config;
  for (const std::size_t i : indices) {
    const std::string& path = layers.paths[i];
    const std::string name = kFilePrefix + path;
    LoraAdapter::Options options;
    options.r = config.rank_of(path);
    options.scale = config.scaling_of(path);
    options.dropout = config.lora_dropout;
    options.init = config.init_lora_weights;
    options.seed = seed;
    if (LinearImpl* linear = layers.linears[i]) {
      options.in_features = linear->in_features();
      options.out_features = linear->out_features();
      options.bias = config.lora_bias;
      options.index = adapter.layers.size();
      options.device = linear->is_quantized() ? linear->quantized().device()
                       : linear->is_int8()    ? linear->int8().codes.device()
                                              : linear->dense_weight().device();
      auto lora = std::make_shared<LoraAdapter>(options);
      lora->train(linear->is_training());
      adapter.layers.push_back({path, linear, lora});
      adapter.tensors.emplace_back(name + ".lora_A.weight", lora->a());
      adapter.tensors.emplace_back(name + ".lora_B.weight", lora->b());
      if (lora->bias().defined()) adapter.tensors.emplace_back(name + ".lora_B.bias", lora->bias());
      adapter.linear_slots.push_back({path, linear, std::move(lora)});
    } else {
      EmbeddingImpl* embedding = layers.embeddings[i];
      LORAPP_CHECK(!config.lora_bias, kOp, path,
                   " is an embedding, for which there is no lora_bias; take it out of the "
                   "target_modules or lora_bias away");
      options.in_features = embedding->rows();
      options.out_features = embedding->size();
      options.index = kFirstEmbeddingIndex + adapter.embeddings.size();
      options.device = embedding->weight().device();
      auto lora = std::make_shared<LoraEmbedding>(options);
      adapter.embeddings.push_back({path, embedding, lora});
      adapter.tensors.emplace_back(name + ".lora_embedding_A", lora->a());
      adapter.tensors.emplace_back(name + ".lora_embedding_B", lora->b());
      adapter.embedding_slots.push_back({path, embedding, std::move(lora)});
    }
  }
}

void add_tokens(Adapter& adapter,
                const Layers& layers,
                const std::vector<std::pair<std::size_t, std::vector<std::int64_t>>>& found,
                const UntiedHead& untied) {
  const UntiedHead tied = untied.head != nullptr ? untied : layers.tied();
  for (const auto& [i, ids] : found) {
    const std::string& path = layers.paths[i];
    LinearImpl* linear = layers.linears[i];
    EmbeddingImpl* embedding = layers.embeddings[i];
    const bool has_both = linear != nullptr && linear == tied.head && found.size() > 1;
    LORAPP_CHECK(!has_both, kOp, "trainable_token_indices: ", path, " is tied to ",
                 layers.path_of(tied.embedding), ", whose rows it reads; name that one alone");
    const torch::Tensor table = linear != nullptr ? linear->dense_weight() : embedding->weight();
    auto tokens = std::make_shared<TrainableTokens>(table, ids);
    adapter.tensors.emplace_back(kFilePrefix + path + ".token_adapter.trainable_tokens_delta",
                                 tokens->rows());
    if (linear != nullptr) {
      adapter.linear_slots.push_back(
          {path, linear, std::make_shared<TrainableTokensHead>(table, tokens, /*owned=*/true)});
      continue;
    }
    if (tied.embedding == embedding) {
      adapter.linear_slots.push_back(
          {path, tied.head, std::make_shared<TrainableTokensHead>(table, tokens, /*owned=*/false),
           /*shared=*/true});
    }
    adapter.embedding_slots.push_back({path, embedding, std::move(tokens)});
  }
}

// A tied head and its embedding are copied apart, as PEFT does.
void untie(const LoraConfig& config, const Layers& layers, UntiedHead& untied) {
  const UntiedHead tied = untied.head != nullptr ? untied : layers.tied();
  if (tied.head == nullptr) return;
  const auto at = std::find(layers.linears.begin(), layers.linears.end(), tied.head);
  const std::string& head = layers.paths[static_cast<std::size_t>(at - layers.linears.begin())];
  const bool head_saved = is_saved_whole(config, head);
  if (!head_saved && !is_saved_whole(config, layers.path_of(tied.embedding))) return;
  if (untied.head == nullptr) {
    const torch::Tensor alias = tied.head->dense_weight().detach();
    tied.head->tie(alias);
    untied = tied;
  }
  const bool owns = tied.head->named_parameters(/*recurse=*/false).contains("weight");
  if (head_saved && !owns) tied.head->set_dense(tied.head->dense_weight(), false);
}

void add_copies(Adapter& adapter, CausalLM& base) {
  if (adapter.config.modules_to_save.empty()) return;
  for (const auto& module : base.named_modules("", /*include_self=*/false)) {
    if (!is_saved_whole(adapter.config, module.key())) continue;
    for (const auto& parameter : module.value()->named_parameters(/*recurse=*/false)) {
      WeightCopy copy;
      copy.name = kFilePrefix + module.key() + "." + parameter.key();
      copy.parameter = parameter.value();
      copy.other = parameter.value().detach().clone();
      adapter.copies.push_back(std::move(copy));
    }
  }
}

// PEFT: "all" trains every bias of the model, "lora_only" those of the adapted layers.
void add_biases(Adapter& adapter, const Layers& layers, const std::vector<std::size_t>& adapted) {
  const LoraConfig& config = adapter.config;
  if (config.bias == "none") return;
  for (std::size_t i = 0; i < layers.paths.size(); ++i) {
    LinearImpl* linear = layers.linears[i];
    if (linear == nullptr || !linear->bias().defined()) continue;
    if (is_saved_whole(config, layers.paths[i])) continue;
    const bool is_adapted = std::find(adapted.begin(), adapted.end(), i) != adapted.end();
    if (config.bias == "lora_only" && !is_adapted) continue;
    torch::Tensor bias = linear->bias();
    bias.requires_grad_(true);
    adapter.tensors.emplace_back(
        kFilePrefix + layers.paths[i] + (is_adapted ? ".base_layer.bias" : ".bias"),
        std::move(bias));
  }
}

// What is saved is what the word meant here, so that a reader need not know it.
void expand_all_linear(LoraConfig& config, const Layers& layers, const TargetMatch& match) {
  if (!targets_all_linear(config)) return;
  std::set<std::string> names;
  for (const std::size_t i : match.indices) names.insert(last_part(layers.paths[i]));
  config.target_modules.assign(names.begin(), names.end());
  if (match_targets(config, layers.paths, layers.aside).indices != match.indices) {
    config.target_modules.clear();
    for (const std::size_t i : match.indices) config.target_modules.push_back(layers.paths[i]);
  }
}

}  // namespace

Adapter build_adapter(CausalLM& base,
                      const std::string& name,
                      LoraConfig config,
                      std::uint64_t seed,
                      bool every_target_must_match,
                      UntiedHead& untied) {
  config.validate();
  const Layers layers(base);
  const TargetMatch match = match_targets(config, layers.paths, layers.aside);
  check_targets(config, layers, match, every_target_must_match);
  check_saved(base, config, layers, match, every_target_must_match);
  check_8bit(config, layers, match);
  const auto tokens = token_layers(config, layers, match);

  Adapter adapter;
  adapter.name = name;
  adapter.config = std::move(config);
  expand_all_linear(adapter.config, layers, match);
  if (adapter.config.base_model_name_or_path.empty()) {
    adapter.config.base_model_name_or_path = base.name_or_path();
  }
  add_lora(adapter, layers, match.indices, seed);
  add_tokens(adapter, layers, tokens, untied);
  untie(adapter.config, layers, untied);
  add_copies(adapter, base);
  add_biases(adapter, layers, match.indices);
  return adapter;
}

}  // namespace lorapp::detail
