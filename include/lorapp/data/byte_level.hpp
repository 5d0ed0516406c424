// The characters that stand for bytes in a byte-level vocabulary (Radford et al. 2019, GPT-2).
// Visible characters of Latin-1 stand for themselves, the other bytes for U+0100 and what follows.
#pragma once

#include <lorapp/data/unicode.hpp>

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace lorapp::detail {

// Code points of the bytes that are not visible Latin-1, in order of the byte, from 0x100 on.
constexpr std::array<char32_t, 256> make_byte_characters() {
  std::array<char32_t, 256> result{};
  char32_t next = 0x100;
  for (unsigned byte = 0; byte < 256; ++byte) {
    const bool visible =
        (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    result[byte] = visible ? byte : next++;
  }
  return result;
}

inline constexpr std::array<char32_t, 256> kByteCharacters = make_byte_characters();

/// The printable character that stands for a byte in a byte-level vocabulary (GPT-2's table: the
/// visible characters of Latin-1 stand for themselves, the rest is U+0100 and what follows).
inline char32_t byte_level_character(unsigned char byte) { return kByteCharacters[byte]; }

/// The bytes that a byte-level token stands for; none if a character of it stands for no byte.
inline std::optional<std::string> byte_level_bytes(std::string_view token) {
  static const std::array<int, 0x200> bytes = [] {
    std::array<int, 0x200> result{};
    result.fill(-1);
    for (int byte = 0; byte < 256; ++byte)
      result[kByteCharacters[static_cast<unsigned>(byte)]] = byte;
    return result;
  }();
  std::string text;
  for (std::size_t at = 0; at < token.size();) {
    const Utf8Step step = utf8_step(token, at);
    if (!step.valid() || step.code >= bytes.size() || bytes[step.code] < 0) return std::nullopt;
    text += static_cast<char>(bytes[step.code]);
    at += step.length;
  }
  return text;
}

}  // namespace lorapp::detail
