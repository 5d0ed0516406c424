// GGUF LoRA files: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, version 3.
#include "atomic_file.hpp"

#include <lorapp/error.hpp>
#include <lorapp/peft/convert.hpp>

#include "plain_lora.hpp"

#include <cstring>
#include <map>
#include <utility>

namespace lorapp {

namespace {

constexpr const char* kOp = "gguf_adapter";
constexpr std::uint64_t kAlignment = 32;
enum ValueType : std::uint32_t { kFloat32Value = 6, kStringValue = 8 };
constexpr std::uint32_t kFloat32Tensor = 0;

// Architectures by model_type; `rotates_pairs`: llama.cpp turns neighbouring rows of q and k
// together where Hugging Face turns the two halves of a head, so their rows change places.
struct Architecture {
  const char* name;
  bool rotates_pairs;
};
const std::map<std::string, Architecture>& architectures() {
  static const std::map<std::string, Architecture> known = {{"llama", {"llama", true}},
                                                            {"mistral", {"llama", true}},
                                                            {"qwen2", {"qwen2", false}},
                                                            {"qwen3", {"qwen3", false}}};
  return known;
}

// llama.cpp's name of a layer's weight; empty if it has none.
std::string gguf_name(const std::string& path) {
  static const std::map<std::string, std::string> inner = {
      {"self_attn.q_proj", "attn_q"}, {"self_attn.k_proj", "attn_k"},
      {"self_attn.v_proj", "attn_v"}, {"self_attn.o_proj", "attn_output"},
      {"mlp.gate_proj", "ffn_gate"},  {"mlp.up_proj", "ffn_up"},
      {"mlp.down_proj", "ffn_down"}};
  if (path == "lm_head") return "output.weight";
  if (path == "model.embed_tokens") return "token_embd.weight";
  constexpr std::string_view kLayers = "model.layers.";
  if (!path.starts_with(kLayers)) return {};
  const std::size_t dot = path.find('.', kLayers.size());
  if (dot == std::string::npos) return {};
  const auto found = inner.find(path.substr(dot + 1));
  if (found == inner.end()) return {};
  return "blk." + path.substr(kLayers.size(), dot - kLayers.size()) + "." + found->second +
         ".weight";
}

/// Rows [heads · (2, d/2)] → [heads · (d/2, 2)]: the halves of each head are interleaved.
torch::Tensor interleave_halves(const torch::Tensor& rows, std::int64_t heads) {
  return rows.reshape({heads, 2, rows.size(0) / heads / 2, rows.size(1)})
      .transpose(1, 2)
      .reshape(rows.sizes());
}

class Bytes {
 public:
  template <class Number>
  void number(Number value) {
    const auto* bytes = reinterpret_cast<const char*>(&value);
    text_.append(bytes, sizeof value);  // the format and the platforms are little-endian
  }
  void string(const std::string& text) {
    number(static_cast<std::uint64_t>(text.size()));
    text_ += text;
  }
  void align() { text_.resize((text_.size() + kAlignment - 1) / kAlignment * kAlignment, '\0'); }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

}  // namespace

void export_gguf_adapter(const PeftModel& model, const std::filesystem::path& path) {
  const torch::NoGradGuard no_grad;
  const ModelConfig& config = model.config();
  const auto architecture = architectures().find(config.model_type);
  Problems problems(kOp, path.string());
  if (architecture == architectures().end()) {
    problems.add("a base of the type \"", config.model_type,
                 "\" is not supported; supported are llama, mistral, qwen2 and qwen3");
  }
  const std::vector<detail::PlainLora> loras = detail::plain_loras(model, kOp);
  for (const detail::PlainLora& lora : loras) {
    if (gguf_name(lora.path).empty()) {
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
    torch::Tensor b = lora.b;
    if (architecture->second.rotates_pairs && lora.path.ends_with("self_attn.q_proj")) {
      b = interleave_halves(b, config.num_attention_heads);
    } else if (architecture->second.rotates_pairs && lora.path.ends_with("self_attn.k_proj")) {
      b = interleave_halves(b, config.num_key_value_heads);
    }
    const double factor = neutral_alpha(lora) / alpha;
    if (factor != 1) b = b * factor;
    const std::string name = gguf_name(lora.path);
    tensors.emplace_back(name + ".lora_a", (lora.is_embedding ? lora.a.t() : lora.a).contiguous());
    tensors.emplace_back(name + ".lora_b", b.contiguous());
  }

  Bytes header;
  for (const char letter : {'G', 'G', 'U', 'F'}) header.number(letter);
  header.number(std::uint32_t{3});
  header.number(static_cast<std::uint64_t>(tensors.size()));
  header.number(std::uint64_t{4});
  for (const auto& [key, value] : {std::pair("general.type", "adapter"),
                                   std::pair("general.architecture", architecture->second.name),
                                   std::pair("adapter.type", "lora")}) {
    header.string(key);
    header.number(static_cast<std::uint32_t>(kStringValue));
    header.string(value);
  }
  header.string("adapter.lora.alpha");
  header.number(static_cast<std::uint32_t>(kFloat32Value));
  header.number(static_cast<float>(alpha));
  std::uint64_t offset = 0;
  for (auto& [name, tensor] : tensors) {
    tensor = tensor.to(torch::kCPU, torch::kFloat32);
    header.string(name);
    header.number(static_cast<std::uint32_t>(tensor.dim()));
    for (std::int64_t dim = tensor.dim() - 1; dim >= 0; --dim) {  // the fastest dimension first
      header.number(static_cast<std::uint64_t>(tensor.size(dim)));
    }
    header.number(kFloat32Tensor);
    header.number(offset);
    offset += (tensor.nbytes() + kAlignment - 1) / kAlignment * kAlignment;
  }
  header.align();

  detail::AtomicFile file(path);
  file.write(header.text());
  const std::string zeros(kAlignment, '\0');
  for (const auto& [name, tensor] : tensors) {
    file.write(tensor.const_data_ptr(), tensor.nbytes());
    file.write(zeros.data(), (kAlignment - tensor.nbytes() % kAlignment) % kAlignment);
  }
  file.commit();
}

}  // namespace lorapp
