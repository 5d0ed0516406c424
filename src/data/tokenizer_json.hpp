// tokenizer.json: what the file of the Python package tokenizers says, read into the pieces that
// encode and decode.
#pragma once

#include "data/text_pipeline.hpp"
#include "data/token_decoder.hpp"
#include "data/vocabulary.hpp"

#include <lorapp/error.hpp>

#include <nlohmann/json.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

namespace lorapp::detail {

/// Ids beyond this are not a vocabulary but a damaged file.
inline constexpr int64_t kMaxVocabulary = int64_t{1} << 24;

/// Added ids may leave gaps, but no more than this: an id is refused that would need far more room
/// than the file has tokens.
inline constexpr int64_t max_token_id(std::size_t num_tokens) {
  const auto limit = 2 * static_cast<int64_t>(num_tokens) + 65536;
  return limit < kMaxVocabulary ? limit : kMaxVocabulary;
}

/// What works on texts and ids once the file is read.
struct JsonTokenizer {
  StringMap<std::int32_t> ids;  ///< of the model's vocabulary
  TextPipeline pipeline;
  std::vector<DecoderStep> decoder;
  std::unordered_map<int64_t, std::string> decoded_as;  ///< normalized form of added tokens
};

/// What else the file says.
struct JsonTokenizerFile {
  JsonTokenizer tokenizer;
  std::vector<VocabularyEntry> vocabulary;  ///< by id
  std::vector<AddedToken> added;
  std::optional<int64_t> unk;
  std::optional<int64_t> before, after;  ///< what the post-processor puts around a text
};

/// Reads the parsed file. What is broken, and what lorapp does not support, goes to `problems`, all
/// of it; the result is of use only if nothing did.
JsonTokenizerFile read_tokenizer_json(const nlohmann::json& file, Problems& problems);

/// The parts of it.
void read_normalizer(const nlohmann::json& file, TextPipeline& pipeline, Problems& problems);
void read_pre_tokenizer(const nlohmann::json& file, TextPipeline& pipeline, Problems& problems);
void read_decoder(const nlohmann::json& file, std::vector<DecoderStep>& steps, Problems& problems);
void read_post_processor(const nlohmann::json& file, JsonTokenizerFile& result, Problems& problems);

/// One component, e.g. {"type": "ByteLevel", …}, and where it stands in the file.
struct JsonComponent {
  const nlohmann::json* value = nullptr;
  std::string where;  ///< "pre_tokenizer.pretokenizers[1]"
  std::string type;
};

/// The components under `key`, with those of a Sequence (its list is `list_key`) one by one; none
/// if the value is absent or null.
std::vector<JsonComponent> json_components(const nlohmann::json& file,
                                           const std::string& key,
                                           const std::string& list_key,
                                           Problems& problems);

}  // namespace lorapp::detail
