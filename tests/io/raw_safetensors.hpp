// safetensors files built byte by byte, so that tests can write what no writer would.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace lorapp::test {

/// The length, the header as it is, the data.
inline std::string raw_safetensors(std::string_view header, std::string_view data) {
  const std::uint64_t length = header.size();
  std::string bytes(sizeof length, '\0');
  std::memcpy(bytes.data(), &length, sizeof length);
  return bytes.append(header).append(data);
}

}  // namespace lorapp::test
