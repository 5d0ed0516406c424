// A tensor name is a module path, a dot, and "weight" or "bias".
#pragma once

#include <cstddef>
#include <string>
#include <utility>

namespace lorapp::detail {

/// "model.norm.weight" → {"model.norm", "weight"}.
inline std::pair<std::string, std::string> split_tensor_name(const std::string& name) {
  const std::size_t dot = name.rfind('.');
  return {name.substr(0, dot), name.substr(dot + 1)};
}

}  // namespace lorapp::detail
