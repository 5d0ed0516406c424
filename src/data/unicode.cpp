// UTF-8 and character classes.
#include <lorapp/data/unicode.hpp>

namespace lorapp::detail {

namespace {

#include "data/unicode_classes.inl"

}  // namespace

bool is_utf8(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Step step = utf8_step(text, at);
    if (!step.valid()) return false;
    at += step.length;
  }
  return true;
}

void append_utf8(char32_t code, std::string& text) {
  const auto put = [&text](char32_t byte) { text += static_cast<char>(byte); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xc0 | code >> 6);
    put(0x80 | (code & 0x3f));
  } else if (code < 0x10000) {
    put(0xe0 | code >> 12);
    put(0x80 | (code >> 6 & 0x3f));
    put(0x80 | (code & 0x3f));
  } else {
    put(0xf0 | code >> 18);
    put(0x80 | (code >> 12 & 0x3f));
    put(0x80 | (code >> 6 & 0x3f));
    put(0x80 | (code & 0x3f));
  }
}

const std::uint8_t* character_classes() {
  static const std::vector<std::uint8_t> classes = [] {
    std::vector<std::uint8_t> result;
    result.reserve(kNumCodePoints);
    for (std::size_t i = 0; i < std::size(kClassRuns); i += 2)
      result.insert(result.end(), kClassRuns[i], static_cast<std::uint8_t>(kClassRuns[i + 1]));
    return result;
  }();
  return classes.data();
}

}  // namespace lorapp::detail
