// The part of an adapter that every program understands: A, B and a scale for each layer.
#pragma once

#include <lorapp/error.hpp>
#include <lorapp/peft/peft_model.hpp>

#include <string>
#include <vector>

namespace lorapp::detail {

struct PlainLora {
  std::string path;
  torch::Tensor a;  // [r, in], or [r, vocab]
  torch::Tensor b;  // [out, r]
  double scale;
  bool is_embedding = false;
};

/// All layers of the active adapter; Error where it trains anything else.
inline std::vector<PlainLora> plain_loras(const PeftModel& model, const char* op) {
  std::vector<PlainLora> loras;
  for (const AdaptedLayer& layer : model.adapted_layers()) {
    loras.push_back({layer.path, layer.adapter->a(), layer.adapter->b(), layer.adapter->scale()});
  }
  for (const AdaptedEmbedding& entry : model.adapted_embeddings()) {
    loras.push_back(
        {entry.path, entry.adapter->a(), entry.adapter->b(), entry.adapter->scale(), true});
  }
  Problems problems(op, "the adapter \"" + model.active_adapter() + "\"");
  for (const auto& [name, tensor] : model.adapter_state()) {
    if (name.ends_with(".lora_A.weight") || name.ends_with(".lora_B.weight")) continue;
    if (name.ends_with(".lora_embedding_A") || name.ends_with(".lora_embedding_B")) continue;
    problems.add(name, " is no low-rank matrix, and these files have no place for it");
  }
  if (loras.empty()) problems.add("it has no layers");
  problems.throw_if_any();
  return loras;
}

}  // namespace lorapp::detail
