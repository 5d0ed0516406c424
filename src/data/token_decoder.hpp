// TokenDecoder: the written forms of tokens → text, by the steps of a tokenizer.json's decoder, one
// token at a time.
#pragma once

#include "data/vocabulary.hpp"

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace lorapp::detail {

struct DecoderStep {
  enum class Kind {
    replace,        ///< `content` for each `pattern` in a token
    byte_fallback,  ///< runs of <0xNN> become text, or U+FFFD per byte if they are not UTF-8
    fuse,           ///< all tokens become one
    strip,          ///< up to `start` and `stop` times `content` off the ends of a token
    metaspace,      ///< `pattern` is a space; with `drop_first` it vanishes from the first token
    byte_level,     ///< byte-level characters become bytes; what is not UTF-8 becomes U+FFFD
    spaces,         ///< a space between tokens: what no decoder at all means
  };
  Kind kind = Kind::fuse;
  std::string pattern{};
  std::string content{};
  std::size_t start = 0;
  std::size_t stop = 0;
  bool drop_first = false;
};

class TokenDecoder {
 public:
  /// Behind a step that fuses only strip may stand.
  explicit TokenDecoder(std::vector<DecoderStep> steps);

  /// The text that this token made certain: whole UTF-8 characters.
  std::string push(std::string_view token);

  /// The rest; the decoder is then as new.
  std::string finish();

 private:
  struct State {
    DecoderStep step;
    bool fused = false;    // all that comes here is one token
    bool started = false;  // something came already
    std::size_t cut = 0;   // how often `content` was stripped from the start
    std::string held{};    // bytes that wait for what follows
  };

  void run(std::size_t index, std::string_view token, std::string& text);
  void end_run(std::size_t index, std::string& text);
  void strip(std::size_t index, std::string_view token, std::string& text);
  void byte_level(std::size_t index, std::string_view token, std::string& text);

  std::vector<State> states_;
};

}  // namespace lorapp::detail
