// The JSON header of a safetensors file, parsed and checked.
// Total on any bytes: a result in which everything fits, or one Error with all problems.
#pragma once

#include <lorapp/export.hpp>
#include <lorapp/io/safetensors.hpp>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lorapp::detail {

/// The official reader's limit; also what bounds the memory that a hostile header can ask for.
inline constexpr std::uint64_t kMaxSafetensorsHeaderBytes = 100'000'000;

struct SafetensorsHeader {
  std::map<std::string, std::string> metadata;
  /// By offset, then by name. The tensors cover the data without gap or overlap.
  std::vector<std::pair<std::string, TensorInfo>> tensors;
};

/// `data_bytes`: the bytes of the file behind the header. `subject` names the file in errors.
LORAPP_API SafetensorsHeader parse_safetensors_header(std::string_view json,
                                                      std::uint64_t data_bytes,
                                                      const std::string& subject);

}  // namespace lorapp::detail
