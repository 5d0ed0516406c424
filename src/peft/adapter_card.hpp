// The README.md that is saved beside an adapter.
#pragma once

#include <lorapp/peft/lora_config.hpp>

#include <string>

namespace lorapp::detail {

/// A model card: the front matter that model hubs read, then what the adapter is.
std::string adapter_card(const LoraConfig& config);

}  // namespace lorapp::detail
