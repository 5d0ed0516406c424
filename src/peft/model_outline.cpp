#include "model_outline.hpp"

#include "nn/weight_slots.hpp"

#include <lorapp/error.hpp>
#include <lorapp/nn/decoder.hpp>
#include <lorapp/nn/traverse.hpp>
#include <lorapp/peft/lora.hpp>
#include <lorapp/peft/trainable_tokens.hpp>

#include <map>

namespace lorapp::detail {

namespace {

// `rows` of a table from `first` on, with those of trained tokens replaced.
torch::Tensor with_tokens(const TrainableTokens& tokens,
                          const torch::Tensor& rows,
                          std::int64_t first) {
  const torch::Tensor place = tokens.ids().to(torch::kCPU) - first;
  const torch::Tensor here =
      at::nonzero(place.ge(0).logical_and(place.lt(rows.size(0)))).squeeze(1);
  return rows.index_copy(0, place.index_select(0, here), tokens.rows().index_select(0, here));
}

}  // namespace

std::pair<torch::Tensor, torch::Tensor> WeightUpdate::apply(const torch::Tensor& rows,
                                                            std::int64_t first) const {
  const std::int64_t end = first + rows.size(0);
  torch::Tensor target = rows;
  torch::Tensor delta;
  if (value.defined()) target = value.slice(0, first, end).to(torch::kFloat32);
  if (const auto* lora = dynamic_cast<const LoraAdapter*>(linear)) {
    delta = at::matmul(lora->b().slice(0, first, end), lora->a()) * lora->scale();
  } else if (const auto* table = dynamic_cast<const LoraEmbedding*>(embedding)) {
    delta = at::matmul(table->b(), table->a().slice(1, first, end)).t() * table->scale();
  } else if (const auto* head = dynamic_cast<const TrainableTokensHead*>(linear)) {
    target = with_tokens(head->tokens(), target, first);
  } else if (const auto* tokens = dynamic_cast<const TrainableTokens*>(embedding)) {
    target = with_tokens(*tokens, target, first);
  } else if (bias.defined()) {
    delta = bias.slice(0, first, end);
  }
  if (delta.defined()) target = target + delta;
  // The update itself is exact where it is all that changes.
  if (!delta.defined() || value.defined()) delta = target - rows;
  return {target, delta};
}

ModelOutline::ModelOutline(const ModelFolder& folder,
                           const WeightReader& reader,
                           const std::filesystem::path& adapter_dir)
    : folder_(folder), reader_(reader) {
  ModelConfig config = folder.config;
  config.quantization_config.reset();
  const auto model = std::make_shared<DecoderLM>(config, folder.dir.string());
  const WeightSlots slots(*model);
  std::map<torch::Dtype, torch::Tensor> one_number;
  for (const WeightSource& source : folder.sources) {
    if (source.spec.shape.size() < 2) {
      slots.set(source.spec.name, reader.dense(source));
      continue;
    }
    const auto dtype = source.is_4bit
                           ? reader.dtype_for(torch::kFloat32)
                           : reader.dtype_for(folder.checkpoint.view(source.name).scalar_type());
    torch::Tensor& number = one_number[dtype];
    if (!number.defined()) number = torch::zeros({1}, dtype);
    placeholders_.insert(number.const_data_ptr());
    slots.set(source.spec.name, number.expand(source.spec.shape));
  }
  tie_head(*model);
  head_ = model->head().get();
  table_ = model->model()->embed_tokens.get();
  model_ = model;
  adapted_.emplace(PeftModel::from_pretrained(model_, adapter_dir));

  Problems problems("merge", adapter_dir.string());
  for (const AdaptedLayer& layer : adapted_->adapted_layers()) {
    if (layer.adapter->bias().defined() && !layer.linear->bias().defined()) {
      problems.add(layer.path, " has no bias that could take the adapter's (lora_bias)");
    }
  }
  problems.throw_if_any();
}

torch::Tensor ModelOutline::own_value(const torch::Tensor& parameter) const {
  return placeholders_.contains(parameter.const_data_ptr()) ? torch::Tensor() : parameter.detach();
}

std::optional<WeightUpdate> ModelOutline::update_of(const std::string& name) const {
  const auto [path, leaf] = split_tensor_name(name);
  WeightUpdate update;
  const auto modules = model_->named_modules(/*name_prefix=*/{}, /*include_self=*/false);
  const auto module = modules[path];
  if (leaf == "weight") {
    if (const auto* linear = dynamic_cast<const LinearImpl*>(module.get())) {
      update.value = own_value(linear->dense_weight());
      update.linear = linear->adapter().get();
    } else if (const auto* table = dynamic_cast<const EmbeddingImpl*>(module.get())) {
      update.value = own_value(table->weight());
      update.embedding = table->adapter().get();
    }
  }
  if (!update.linear && !update.embedding && !update.value.defined()) {
    // A vector is there as the folder has it, unless the adapter has another.
    const auto parameters = module->named_parameters(/*recurse=*/false);
    const torch::Tensor* now = parameters.find(leaf);
    for (const WeightSource& source : folder_.sources) {
      if (source.spec.name != name || source.spec.shape.size() > 1) continue;
      if (now != nullptr && !now->equal(reader_.dense(source))) update.value = now->detach();
    }
    if (leaf == "bias") {
      const auto* linear = dynamic_cast<const LinearImpl*>(module.get());
      if (linear != nullptr && linear->adapter()) update.bias = linear->adapter()->delta_bias();
    }
  }
  const bool any =
      update.value.defined() || update.linear || update.embedding || update.bias.defined();
  return any ? std::optional<WeightUpdate>(std::move(update)) : std::nullopt;
}

bool ModelOutline::unties_head() const {
  if (!folder_.config.tie_word_embeddings) return false;
  return !head_->dense_weight().is_same(table_->weight()) ||
         dynamic_cast<const LoraAdapter*>(head_->adapter().get()) != nullptr ||
         dynamic_cast<const LoraEmbedding*>(table_->adapter().get()) != nullptr;
}

WeightSource ModelOutline::own_head() const {
  WeightSource source;
  source.spec = {std::string(kHead) + ".weight",
                 {folder_.config.vocab_size, folder_.config.hidden_size}};
  for (const WeightSource& each : folder_.sources) {
    if (each.spec.name == "model.embed_tokens.weight") source.name = each.name;
  }
  return source;
}

}  // namespace lorapp::detail
