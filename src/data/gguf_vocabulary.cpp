#include "data/gguf_vocabulary.hpp"

#include "data/tokenizer_json.hpp"
#include "json_file.hpp"

#include <lorapp/data/bpe.hpp>
#include <lorapp/data/split_pattern.hpp>

#include <algorithm>
#include <cstring>
#include <string_view>
#include <system_error>
#include <utility>

namespace lorapp::detail {

namespace {

using nlohmann::json;

// Scores below those of all pieces, as llama.cpp's own converter gives them.
constexpr float kAddedScore = -1000;
constexpr float kUnusedScore = -10000;

// The fields of a protobuf message: calls f(number, value of a varint, bytes of any other field)
// until the message ends or is no protobuf.
template <class F>
void for_each_field(std::string_view message, F&& f) {
  std::size_t at = 0;
  const auto varint = [&]() -> std::optional<std::uint64_t> {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64 && at < message.size(); shift += 7) {
      const auto byte = static_cast<unsigned char>(message[at++]);
      value |= std::uint64_t{byte & 0x7fu} << shift;
      if (byte < 0x80) return value;
    }
    return std::nullopt;
  };
  while (at < message.size()) {
    const auto key = varint();
    if (!key) return;
    const std::uint64_t kind = *key & 7;
    std::uint64_t number = 0;
    std::uint64_t size = kind == 1 ? 8 : kind == 5 ? 4 : 0;
    if (kind == 0 || kind == 2) {
      const auto value = varint();
      if (!value) return;
      (kind == 0 ? number : size) = *value;
    }
    if (kind == 3 || kind == 4 || kind > 5 || size > message.size() - at) return;
    f(*key >> 3, number, message.substr(at, size));
    at += size;
  }
}

// sentencepiece's ModelProto: pieces (1) { piece (1), score (2), type (3) }, trainer_spec (2)
// { model_type (3) } and normalizer_spec (3) { precompiled_charsmap (2), remove_extra_whitespaces
// (4) }. The types of its pieces are those of llama.cpp's tokens.
struct Piece {
  std::string text;
  float score = 0;
  std::uint64_t type = kNormalToken;
};
struct SentencepieceModel {
  std::vector<Piece> pieces;
  std::uint64_t algorithm = 1;  // 1 unigram, 2 BPE
  bool normalizes = false;
  bool removes_spaces = true;
};

Piece read_piece(std::string_view message) {
  Piece piece;
  for_each_field(message, [&](std::uint64_t field, std::uint64_t number, std::string_view bytes) {
    if (field == 1) piece.text = bytes;
    if (field == 2 && bytes.size() == sizeof piece.score) {
      std::memcpy(&piece.score, bytes.data(), sizeof piece.score);
    }
    if (field == 3) piece.type = number;
  });
  return piece;
}

SentencepieceModel read_sentencepiece(std::string_view file) {
  SentencepieceModel model;
  for_each_field(file, [&](std::uint64_t field, std::uint64_t, std::string_view part) {
    if (field == 1) model.pieces.push_back(read_piece(part));
    if (field != 2 && field != 3) return;
    for_each_field(part, [&](std::uint64_t inner, std::uint64_t number, std::string_view bytes) {
      if (field == 2 && inner == 3) model.algorithm = number;
      if (field == 3 && inner == 2) model.normalizes = !bytes.empty();
      if (field == 3 && inner == 4) model.removes_spaces = number != 0;
    });
  });
  return model;
}

void set_token(GgufVocabulary& result, std::int64_t id, std::string token, GgufTokenType type) {
  const auto index = static_cast<std::size_t>(id);
  if (index >= result.tokens.size()) return;
  result.tokens[index] = std::move(token);
  result.types[index] = type;
}

void add_pieces(const std::string& bytes, GgufVocabulary& result, Problems& problems) {
  const SentencepieceModel model = read_sentencepiece(bytes);
  if (model.algorithm != 2) {
    problems.add(
        "tokenizer.model is not of sentencepiece's kind BPE, the only one that llama.cpp "
        "encodes as sentencepiece does");
  }
  if (model.normalizes) {
    problems.add("tokenizer.model normalizes its text, which llama.cpp does not");
  }
  if (model.removes_spaces) {
    problems.add("tokenizer.model removes extra white space, which llama.cpp does not");
  }
  result.model = "llama";
  result.pre = "default";
  result.scores.assign(result.tokens.size(), kUnusedScore);
  for (std::size_t id = 0; id < std::min(model.pieces.size(), result.tokens.size()); ++id) {
    const Piece& piece = model.pieces[id];
    result.tokens[id] = piece.text;
    result.scores[id] = piece.score;
    result.types[id] = static_cast<std::int32_t>(piece.type);
  }
}

// llama.cpp's name of what cuts a text into words.
std::string pre_name(const json& file, Problems& problems) {
  std::string name;
  for (const JsonComponent& step :
       json_components(file, "pre_tokenizer", "pretokenizers", problems)) {
    if (step.type == "ByteLevel") {
      if (get_bool_or(*step.value, "add_prefix_space", problems, true)) {
        problems.add(step.where, " puts a space before a text, which llama.cpp does not");
      }
      if (get_bool_or(*step.value, "use_regex", problems, true)) name = "gpt-2";
    } else if (step.type == "Split") {
      const json* pattern = find_object(*step.value, "pattern", problems);
      const std::string regex = pattern == nullptr ? "" : pattern->value("Regex", "");
      for (const KnownSplit& known : kKnownSplits) {
        if (known.regex != regex) continue;
        name = known.pattern == SplitPattern::llama3  ? "llama-bpe"
               : known.pattern == SplitPattern::qwen2 ? "qwen2"
                                                      : "gpt-2";
      }
    }
  }
  return name;
}

void add_byte_level(const json& file, GgufVocabulary& result, Problems& problems) {
  result.model = "gpt2";
  result.pre = pre_name(file, problems);
  if (result.pre.empty()) {
    problems.add(
        "tokenizer.json cuts a text into words in a way that llama.cpp has no name for here");
  }
  for (const JsonComponent& step : json_components(file, "normalizer", "normalizers", problems)) {
    if (step.type != "NFC") {
      problems.add(step.where, " (", step.type, ") changes the text, which llama.cpp does not");
    }
  }
  const json& model = file.at("model");
  if (get_bool_or(model, "ignore_merges", problems, false) != (result.pre == "llama-bpe")) {
    problems.add("model.ignore_merges is not what llama.cpp does with the words of ", result.pre);
  }
  for (const auto& [token, id] : model.at("vocab").items()) {
    set_token(result, id.get<std::int64_t>(), token, kNormalToken);
  }
  // Tokens of the vocabulary that are found whole in a text all the same.
  for (const json& token : file.value("added_tokens", json::array())) {
    set_token(result, token.at("id").get<std::int64_t>(), token.at("content").get<std::string>(),
              token.value("special", false) ? kControlToken : kUserDefinedToken);
  }
  for (const json& merge : model.at("merges")) {
    result.merges.push_back(merge.is_string() ? merge.get<std::string>()
                                              : merge.at(0).get<std::string>() + " " +
                                                    merge.at(1).get<std::string>());
  }
}

bool is_byte_level(const json& file, Problems& problems) {
  for (const JsonComponent& step :
       json_components(file, "pre_tokenizer", "pretokenizers", problems)) {
    if (step.type == "ByteLevel") return true;
  }
  return false;
}

std::string chat_template(const std::filesystem::path& dir) {
  std::error_code ignored;
  if (std::filesystem::exists(dir / "chat_template.jinja", ignored)) {
    return read_text_file(dir / "chat_template.jinja", kTokenizerOp);
  }
  const std::filesystem::path config = dir / "tokenizer_config.json";
  if (!std::filesystem::exists(config, ignored)) return {};
  const json file = read_json_object(config, kTokenizerOp);
  const auto found = file.find("chat_template");
  return found != file.end() && found->is_string() ? found->get<std::string>() : std::string();
}

}  // namespace

GgufVocabulary gguf_vocabulary(const std::filesystem::path& dir,
                               std::int64_t rows,
                               Problems& problems) {
  const Tokenizer tokenizer = Tokenizer::from_pretrained(dir);  // checks every file
  GgufVocabulary result;
  if (tokenizer.vocab_size() > rows) {
    problems.add("the tokenizer has ", tokenizer.vocab_size(), " tokens, but the embedding has ",
                 rows, " rows");
    return result;
  }
  for (std::int64_t id = 0; id < rows; ++id) {
    result.tokens.push_back("[PAD" + std::to_string(id) + "]");
  }
  result.types.assign(static_cast<std::size_t>(rows), kUnusedToken);
  std::error_code ignored;
  if (std::filesystem::exists(dir / "tokenizer.model", ignored)) {
    add_pieces(read_text_file(dir / "tokenizer.model", kTokenizerOp), result, problems);
  } else {
    const json file = read_json_object(dir / "tokenizer.json", kTokenizerOp);
    if (is_byte_level(file, problems)) {
      add_byte_level(file, result, problems);
    } else {
      problems.add(
          "tokenizer.json is a sentencepiece model in other words, whose scores llama.cpp "
          "needs; put its tokenizer.model beside it");
    }
  }
  // What the configuration adds behind the model, or says of its tokens.
  for (std::int64_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const auto index = static_cast<std::size_t>(id);
    std::string token;
    try {
      token = tokenizer.id_to_token(id);
    } catch (const Error&) {
      continue;  // a gap below an added token
    }
    const bool added = result.types[index] == kUnusedToken && result.tokens[index] != token;
    if (added) {
      set_token(result, id, token, tokenizer.is_special(id) ? kControlToken : kUserDefinedToken);
      if (!result.scores.empty()) result.scores[index] = kAddedScore;
    } else if (tokenizer.is_special(id) && result.types[index] == kNormalToken) {
      result.types[index] = kControlToken;
    }
  }
  result.bos = tokenizer.bos_id();
  result.eos = tokenizer.eos_id();
  result.unk = tokenizer.unk_id();
  result.pad = tokenizer.pad_id();
  result.add_bos = tokenizer.add_bos();
  result.add_eos = tokenizer.add_eos();
  const std::vector<std::int64_t> letter = tokenizer.encode("a", /*add_special_tokens=*/false);
  result.add_space_prefix = result.model == "llama" && !letter.empty() &&
                            tokenizer.id_to_token(letter.front()).starts_with(kSpaceMark);
  result.chat_template = chat_template(dir);
  return result;
}

}  // namespace lorapp::detail
