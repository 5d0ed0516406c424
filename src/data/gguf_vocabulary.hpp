// A tokenizer as GGUF files hold one: what llama.cpp needs to make the same tokens.
#pragma once

#include <lorapp/data/tokenizer.hpp>
#include <lorapp/error.hpp>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace lorapp::detail {

/// llama.cpp's kinds of tokens.
enum GgufTokenType : std::int32_t {
  kNormalToken = 1,
  kUnknownToken = 2,
  kControlToken = 3,
  kUserDefinedToken = 4,
  kUnusedToken = 5,
  kByteToken = 6
};

struct GgufVocabulary {
  std::string model;                ///< "llama" (sentencepiece) or "gpt2" (byte-level BPE)
  std::string pre;                  ///< how a text is cut into words: "default", "llama-bpe", …
  std::vector<std::string> tokens;  ///< by id
  std::vector<std::int32_t> types;  ///< GgufTokenType of each
  std::vector<float> scores;        ///< sentencepiece: of each
  std::vector<std::string> merges;  ///< byte-level BPE: "left right", by rank
  std::optional<std::int64_t> bos, eos, unk, pad;
  bool add_bos = false;
  bool add_eos = false;
  bool add_space_prefix = false;  ///< sentencepiece: a space is put before a text
  std::string chat_template;      ///< empty: none
};

/// The tokenizer of the folder `dir` with `rows` tokens, those of the model's embedding; ids that
/// no token has are unused ones. What llama.cpp would do differently goes to `problems`:
/// normalizers (NFC aside), unigram models, pre-tokenizers it has no name for, sentencepiece models
/// that are written as a tokenizer.json alone.
GgufVocabulary gguf_vocabulary(const std::filesystem::path& dir,
                               std::int64_t rows,
                               Problems& problems);

}  // namespace lorapp::detail
