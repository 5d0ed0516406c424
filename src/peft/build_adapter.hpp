// What a configuration means in a model: layers, embeddings, copied weights, trained rows.
#pragma once

#include <lorapp/nn/causal_lm.hpp>
#include <lorapp/peft/adapter.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace lorapp::detail {

inline constexpr const char* kFilePrefix = "base_model.model.";

/// A head that was tied to an embedding until one of the two got values of its own.
struct UntiedHead {
  LinearImpl* head = nullptr;
  EmbeddingImpl* embedding = nullptr;

  /// Ties them again.
  void tie() {
    if (head != nullptr) head->tie(embedding->weight());
    head = nullptr;
  }
};

/// The parts of an adapter, not yet in the layers. No adapter may be active in `base`. One Error
/// lists every target that means nothing (from a file these are only an error if nothing is left),
/// and nothing is changed then. `untied` is set where a tied head has to be taken apart.
Adapter build_adapter(CausalLM& base,
                      const std::string& name,
                      LoraConfig config,
                      std::uint64_t seed,
                      bool every_target_must_match,
                      UntiedHead& untied);

}  // namespace lorapp::detail
