// generate(): continues a prompt token by token, and streams the text.
// Convention: a result's tokens hold the end token, its text does not.
#pragma once

#include <lorapp/data/tokenizer.hpp>
#include <lorapp/error.hpp>
#include <lorapp/generate/generation_config.hpp>
#include <lorapp/generate/sampler.hpp>
#include <lorapp/generate/stop_filter.hpp>
#include <lorapp/nn/causal_lm.hpp>
#include <lorapp/nn/kv_cache.hpp>

#include <torch/types.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lorapp {

/// Why a generation ended.
enum class FinishReason {
  eos,          ///< an end token came
  length,       ///< max_new_tokens, or the model's context is full
  stop,         ///< a stop string appeared
  interrupted,  ///< the caller's flag was set
};

/// "eos", "length", "stop", "interrupted".
inline std::string_view to_string(FinishReason reason) {
  switch (reason) {
    case FinishReason::eos:
      return "eos";
    case FinishReason::length:
      return "length";
    case FinishReason::stop:
      return "stop";
    case FinishReason::interrupted:
      break;
  }
  return "interrupted";
}

struct GenerationResult {
  std::vector<int64_t> prompt_tokens;  ///< bos first, where the tokenizer has one
  std::vector<int64_t> tokens;         ///< the new ones, with the end token
  std::string text;                    ///< of the new tokens, cut before a stop string
  FinishReason finish_reason = FinishReason::length;
  double tokens_per_second = 0;          ///< of the new tokens after the first; 0 if there is none
  double prefill_tokens_per_second = 0;  ///< of the prompt
};

/// Receives the new text as it becomes certain: whole UTF-8 characters, never a part of a stop
/// string.
using TextCallback = std::function<void(std::string_view)>;

namespace detail {

/// Puts a model into evaluation mode; afterwards every module is in its former mode again.
class EvaluationMode {
 public:
  explicit EvaluationMode(torch::nn::Module& model) {
    remember(model);
    model.eval();
  }
  ~EvaluationMode() {
    // Parents come before their children, so that a child's own mode is set last.
    for (const auto& [module, training] : former_) module->train(training);
  }
  EvaluationMode(const EvaluationMode&) = delete;
  EvaluationMode& operator=(const EvaluationMode&) = delete;

 private:
  // Not modules(): that wants the model in a shared_ptr, and a PeftModel is often a plain variable.
  void remember(torch::nn::Module& module) {
    former_.emplace_back(&module, module.is_training());
    for (const auto& child : module.children()) remember(*child);
  }

  std::vector<std::pair<torch::nn::Module*, bool>> former_;
};

/// The tokens that end a text: the caller's, else the model's, else the tokenizer's.
inline std::vector<int64_t> end_tokens(const GenerationConfig& config,
                                       const ModelConfig& model,
                                       const Tokenizer& tokenizer) {
  if (!config.eos_token_id.empty()) return config.eos_token_id;
  if (!model.eos_token_id.empty()) return model.eos_token_id;
  if (tokenizer.eos_id()) return {*tokenizer.eos_id()};
  return {};
}

/// bos (where the tokenizer has one) and the prompt as it stands.
inline std::vector<int64_t> prompt_tokens(const Tokenizer& tokenizer, std::string_view prompt) {
  std::vector<int64_t> ids = tokenizer.encode(prompt, /*add_special_tokens=*/false);
  if (tokenizer.add_bos()) ids.insert(ids.begin(), *tokenizer.bos_id());
  return ids;
}

inline void check_prompt(const CausalLM& model,
                         const Tokenizer& tokenizer,
                         const std::vector<int64_t>& ids) {
  const ModelConfig& config = model.config();
  LORAPP_CHECK(tokenizer.vocab_size() <= config.vocab_size, "generate", "the tokenizer has ",
               tokenizer.vocab_size(), " tokens, but the model's embedding has ", config.vocab_size,
               " rows");
  LORAPP_CHECK(!ids.empty(), "generate",
               "the prompt is empty and the tokenizer has no bos token to begin with");
  LORAPP_CHECK(static_cast<int64_t>(ids.size()) < config.max_position_embeddings, "generate",
               "the prompt has ", ids.size(), " tokens, but the model's context is ",
               config.max_position_embeddings, " (max_position_embeddings), which leaves no room");
}

inline double per_second(std::size_t count, std::chrono::steady_clock::duration time) {
  const double seconds = std::chrono::duration<double>(time).count();
  return seconds > 0 ? static_cast<double>(count) / seconds : 0;
}

}  // namespace detail

/// Continues the tokens of a prompt, which are taken as they are.
///
/// Runs without gradients and in evaluation mode, and leaves the model's modes and every global
/// state as they were. Ends at an end token, a stop string, max_new_tokens or the model's context
/// (max_position_embeddings). `on_text` receives the text while it is made; `interrupt`, if given,
/// is read before every token. Throws Error for settings outside their range, a prompt that fills
/// the context, and logits that are not finite.
inline GenerationResult generate_from(CausalLM& model,
                                      const Tokenizer& tokenizer,
                                      std::vector<int64_t> prompt,
                                      const GenerationConfig& config = {},
                                      const TextCallback& on_text = {},
                                      const std::atomic<bool>* interrupt = nullptr) {
  using Clock = std::chrono::steady_clock;
  const std::vector<int64_t> ends = detail::end_tokens(config, model.config(), tokenizer);
  Sampler sampler(config, ends);
  GenerationResult result;
  detail::check_prompt(model, tokenizer, prompt);
  result.prompt_tokens = std::move(prompt);
  const auto prompt_length = static_cast<int64_t>(result.prompt_tokens.size());
  const int64_t limit =
      std::min(config.max_new_tokens, model.config().max_position_embeddings - prompt_length);

  const torch::NoGradGuard no_grad;
  const detail::EvaluationMode evaluation(model);
  Tokenizer::StreamDecoder decoder(tokenizer);
  StopFilter filter(config.stop_strings);
  const auto emit = [&](const std::string& text) {
    result.text += text;
    if (on_text && !text.empty()) on_text(text);
  };

  std::vector<int64_t> context = result.prompt_tokens;
  KvCache cache;
  const auto logits_after = [&](const std::vector<int64_t>& ids, int64_t position) {
    const torch::Tensor hidden = model.hidden_states(PackedInput::single(ids, position), &cache);
    return model.lm_head(hidden[-1]);  // only the last position is asked
  };

  const Clock::time_point start = Clock::now();
  torch::Tensor logits = logits_after(context, 0);
  const Clock::time_point prefilled = Clock::now();
  for (;;) {
    if (interrupt != nullptr && interrupt->load()) {
      result.finish_reason = FinishReason::interrupted;
      break;
    }
    const auto num_new = static_cast<int64_t>(result.tokens.size());
    const int64_t token = sampler.next(logits, context, num_new);
    result.tokens.push_back(token);
    context.push_back(token);
    if (!config.ignore_eos && std::ranges::find(ends, token) != ends.end()) {
      result.finish_reason = FinishReason::eos;
      break;
    }
    // An embedding may have more rows than the tokenizer has tokens; such a token has no text.
    if (token < tokenizer.vocab_size()) emit(filter.push(decoder.push(token)));
    if (filter.stopped()) {
      result.finish_reason = FinishReason::stop;
      break;
    }
    if (num_new + 1 == limit) break;
    logits = logits_after({token}, prompt_length + num_new);
  }
  const Clock::time_point end = Clock::now();

  if (!filter.stopped()) {
    emit(filter.push(decoder.finish()));
    if (filter.stopped()) result.finish_reason = FinishReason::stop;
    emit(filter.finish());
  }
  result.prefill_tokens_per_second =
      detail::per_second(result.prompt_tokens.size(), prefilled - start);
  if (result.tokens.size() > 1) {
    result.tokens_per_second = detail::per_second(result.tokens.size() - 1, end - prefilled);
  }
  return result;
}

/// Continues `prompt`, which is taken as it is after bos.
inline GenerationResult generate(CausalLM& model,
                                 const Tokenizer& tokenizer,
                                 std::string_view prompt,
                                 const GenerationConfig& config = {},
                                 const TextCallback& on_text = {},
                                 const std::atomic<bool>* interrupt = nullptr) {
  return generate_from(model, tokenizer, detail::prompt_tokens(tokenizer, prompt), config, on_text,
                       interrupt);
}

}  // namespace lorapp
