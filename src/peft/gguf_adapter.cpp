// GGUF LoRA files, as llama.cpp reads them beside a base.
#include "gguf_names.hpp"
#include "io/gguf_writer.hpp"
#include "plain_lora.hpp"

#include <lorapp/error.hpp>
#include <lorapp/peft/convert.hpp>

#include <utility>

namespace lorapp {

namespace {

constexpr const char* kOp = "gguf_adapter";

}  // namespace

void export_gguf_adapter(const PeftModel& model, const std::filesystem::path& path) {
  const torch::NoGradGuard no_grad;
  const ModelConfig& config = model.config();
  const detail::GgufArchitecture* architecture = detail::gguf_architecture(config.model_type);
  Problems problems(kOp, path.string());
  if (architecture == nullptr) {
    problems.add("a base of the type \"", config.model_type, "\" is not supported; supported are ",
                 detail::kGgufModelTypes);
  }
  const std::vector<detail::PlainLora> loras = detail::plain_loras(model, kOp);
  for (const detail::PlainLora& lora : loras) {
    if (detail::gguf_name(lora.path).empty()) {
      problems.add(lora.path, " has no name in llama.cpp that is known here");
    }
    if (lora.path == "lm_head" && config.tie_word_embeddings) {
      problems.add("lm_head is tied to the embedding, so the base's GGUF has no tensor for it");
    }
  }
  problems.throw_if_any();

  const auto neutral_alpha = [](const detail::PlainLora& lora) {
    return lora.scale * static_cast<double>(lora.a.size(0));
  };
  const double alpha = neutral_alpha(loras.front());
  std::vector<std::pair<std::string, torch::Tensor>> tensors;
  for (const detail::PlainLora& lora : loras) {
    torch::Tensor b = detail::gguf_rows(lora.path, lora.b, *architecture, config);
    const double factor = neutral_alpha(lora) / alpha;
    if (factor != 1) b = b * factor;
    const std::string name = detail::gguf_name(lora.path) + ".weight";
    tensors.emplace_back(name + ".lora_a", lora.is_embedding ? lora.a.t() : lora.a);
    tensors.emplace_back(name + ".lora_b", b);
  }

  detail::GgufWriter file(path);
  file.set("general.type", std::string("adapter"));
  file.set("general.architecture", std::string(architecture->name));
  file.set("adapter.type", std::string("lora"));
  file.set("adapter.lora.alpha", static_cast<float>(alpha));
  for (const auto& [name, tensor] : tensors) {
    file.declare(name, tensor.sizes().vec(), GgufType::f32);
  }
  for (const auto& [name, tensor] : tensors) file.write(name, tensor);
  file.finish();
}

}  // namespace lorapp
