// CheckpointingMode: what a training step keeps between a layer's forward and its backward pass.
// docs/performance.md has the table. The gradients are the same bits in every mode.
#pragma once

#include <lorapp/error.hpp>

#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

namespace lorapp {

enum class CheckpointingMode {
  none,       ///< what the backward pass reads is kept
  selective,  ///< but for the outputs of RMSNorm and SwiGLU, which it makes again from their inputs
  full,       ///< each layer's input is kept, and the layer computed once more
};

inline constexpr std::array<std::pair<CheckpointingMode, std::string_view>, 3> kCheckpointingModes =
    {{{CheckpointingMode::none, "none"},
      {CheckpointingMode::selective, "selective"},
      {CheckpointingMode::full, "full"}}};

/// "none", "selective" or "full".
constexpr std::string_view checkpointing_mode_name(CheckpointingMode mode) {
  return kCheckpointingModes.at(static_cast<std::size_t>(mode)).second;
}

/// The mode of that name; Error for any other.
inline CheckpointingMode parse_checkpointing_mode(std::string_view name) {
  for (const auto& [mode, known] : kCheckpointingModes) {
    if (known == name) return mode;
  }
  detail::fail("checkpointing", "the mode is \"" + std::string(name) +
                                    "\"; expected \"none\", \"selective\" or \"full\"");
}

}  // namespace lorapp
