// What a Tokenizer holds: a sentencepiece model, or what a tokenizer.json says, and what is common
// to both. Only the files of this folder that include it know of sentencepiece. Written once by
// from_pretrained, read by many threads afterwards.
#pragma once

#include "data/tokenizer_json.hpp"
#include "data/vocabulary.hpp"

#include <lorapp/data/tokenizer.hpp>

#include <sentencepiece_processor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace lorapp {

struct Tokenizer::Impl {
  sentencepiece::SentencePieceProcessor model;  // empty where `json` is there
  std::optional<detail::JsonTokenizer> json;
  std::map<std::string, std::string> files;  // name → bytes, as read

  std::vector<detail::VocabularyEntry> vocabulary;
  std::unordered_map<std::string, int64_t> added_ids;
  // For the sentencepiece model; a tokenizer.json's pipeline has finders of its own.
  detail::AddedTokenFinder plain_added;  // matched in any text: added behind the model, not special
  detail::AddedTokenFinder all_added;    // matched where special tokens are asked for

  std::optional<int64_t> bos, eos, unk, pad;
  bool add_bos = true;
  bool add_eos = false;
  bool legacy = false;
  bool model_puts_space = true;  // the model puts a space before a text
  bool prefix_space = true;      // it does so here, and decoding drops it

  const detail::VocabularyEntry& entry(int64_t id) const;
  std::optional<int64_t> find_token(std::string_view token) const;

  /// The same model without the space before a text; made at first need.
  const sentencepiece::SentencePieceProcessor& model_without_prefix() const;

 private:
  mutable std::once_flag bare_once_;
  mutable std::unique_ptr<sentencepiece::SentencePieceProcessor> bare_;
};

}  // namespace lorapp
