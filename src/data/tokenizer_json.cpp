// tokenizer.json: the file as a whole, its added tokens, and its BPE model.
#include "data/tokenizer_json.hpp"

#include "json_file.hpp"

#include <algorithm>
#include <limits>
#include <utility>

namespace lorapp::detail {

namespace {

using nlohmann::json;

// Many things of one kind that are wrong: a count and the first few of them, one problem.
class Wrong {
 public:
  template <class... Pieces>
  void add(const Pieces&... pieces) {
    if (count_++ < 3) examples_ += (count_ > 1 ? ", " : "") + concat(pieces...);
  }
  void report(Problems& problems, const char* what) const {
    if (count_ > 0)
      problems.add(what, count_ == 1 ? ": " : concat(" (", count_, "): "), examples_,
                   count_ > 3 ? ", …" : "");
  }

 private:
  std::size_t count_ = 0;
  std::string examples_;
};

const json& member(const json& object, const char* key) {
  static const json null;
  const auto it = object.find(key);
  return it != object.end() ? *it : null;
}

void read_vocabulary(const json& vocab,
                     int64_t limit,
                     JsonTokenizerFile& result,
                     Problems& problems) {
  if (!vocab.is_object() || vocab.empty()) {
    problems.add("model.vocab is ", describe(vocab), "; expected an object of tokens and ids");
    return;
  }
  Wrong out_of_range, twice;
  for (const auto& [token, id] : vocab.items()) {
    const bool fits = id.is_number_integer() && id >= 0 && id < limit;
    if (!fits) {
      out_of_range.add(in_quotes(token), ": ", describe(id));
      continue;
    }
    const auto index = id.get<std::size_t>();
    if (index >= result.vocabulary.size()) result.vocabulary.resize(index + 1);
    VocabularyEntry& entry = result.vocabulary[index];
    if (entry.known) {
      twice.add(in_quotes(entry.token), " and ", in_quotes(token), " are ", index);
      continue;
    }
    entry.token = token;
    entry.known = true;
    result.tokenizer.ids.emplace(token, static_cast<std::int32_t>(index));
  }
  out_of_range.report(problems,
                      concat("model.vocab has ids that are no number below ", limit).c_str());
  twice.report(problems, "model.vocab gives an id twice");
}

// The two tokens of a merge: ["a", "b"], or "a b" in older files.
std::optional<std::pair<std::string, std::string>> merge_parts(const json& merge) {
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string())
    return std::pair(merge[0].get<std::string>(), merge[1].get<std::string>());
  if (!merge.is_string()) return std::nullopt;
  const auto& text = merge.get_ref<const std::string&>();
  const std::size_t space = text.find(' ');
  if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos)
    return std::nullopt;
  return std::pair(text.substr(0, space), text.substr(space + 1));
}

std::vector<BpeModel::Merge> read_merges(const json& merges,
                                         const StringMap<std::int32_t>& ids,
                                         Problems& problems) {
  std::vector<BpeModel::Merge> result;
  if (!merges.is_array()) {
    problems.add("model.merges is ", describe(merges), "; expected a list");
    return result;
  }
  result.reserve(merges.size());
  Wrong malformed, unknown;
  for (const json& merge : merges) {
    const auto parts = merge_parts(merge);
    if (!parts || parts->first.empty() || parts->second.empty()) {
      malformed.add(describe(merge));
      continue;
    }
    const auto left = ids.find(parts->first);
    const auto right = ids.find(parts->second);
    const auto made = ids.find(parts->first + parts->second);
    if (left == ids.end() || right == ids.end() || made == ids.end()) {
      unknown.add(describe(merge));
      continue;
    }
    result.push_back({left->second, right->second, made->second});
  }
  malformed.report(problems, "model.merges has entries that are no pair of tokens");
  unknown.report(problems,
                 "model.merges has pairs whose tokens, or what they make, are not in model.vocab");
  return result;
}

void refuse_text(const json& model, const char* key, Problems& problems) {
  const json& value = member(model, key);
  const bool nothing =
      value.is_null() || (value.is_string() && value.get_ref<const std::string&>().empty());
  if (!nothing) problems.add("model.", key, " is ", describe(value), ", which is not supported");
}

void read_added_tokens(const json& list,
                       int64_t limit,
                       JsonTokenizerFile& result,
                       Problems& problems) {
  if (list.is_null()) return;
  if (!list.is_array()) {
    problems.add("added_tokens is ", describe(list), "; expected a list");
    return;
  }
  Wrong malformed, taken;
  for (const json& token : list) {
    const json& content = token.is_object() ? member(token, "content") : token;
    const json& id = token.is_object() ? member(token, "id") : token;
    if (!content.is_string() || content.get_ref<const std::string&>().empty() ||
        !id.is_number_integer() || id < 0 || id >= limit) {
      malformed.add(describe(token));
      continue;
    }
    const bool special = get_bool_or(token, "special", problems, false);
    result.added.push_back({.id = id.get<int64_t>(),
                            .content = content.get<std::string>(),
                            .special = special,
                            .strip_left = get_bool_or(token, "lstrip", problems, false),
                            .strip_right = get_bool_or(token, "rstrip", problems, false),
                            .single_word = get_bool_or(token, "single_word", problems, false),
                            .normalized = get_bool_or(token, "normalized", problems, !special)});
    const AddedToken& added = result.added.back();
    const auto index = static_cast<std::size_t>(added.id);
    if (index < result.vocabulary.size() && result.vocabulary[index].known &&
        result.vocabulary[index].token != added.content) {
      taken.add(in_quotes(added.content), " has id ", added.id, ", which is ",
                in_quotes(result.vocabulary[index].token), " in model.vocab");
    }
  }
  malformed.report(
      problems,
      concat("added_tokens has entries without a \"content\" and an \"id\" below ", limit).c_str());
  taken.report(problems, "added_tokens contradicts the vocabulary");
}

// What a piece may be as a whole, whatever the merges. Text that looks like a special token is not
// one, so no piece is it.
StringMap<std::int32_t> whole_words(const JsonTokenizerFile& file) {
  StringMap<std::int32_t> words;
  const auto form = [&](const std::string& token) {
    return file.tokenizer.pipeline.byte_level ? byte_level_bytes(token) : std::optional(token);
  };
  for (const auto& [token, id] : file.tokenizer.ids) {
    if (const auto bytes = form(token)) words.emplace(*bytes, id);
  }
  for (const AddedToken& added : file.added) {
    if (const auto bytes = form(added.content); bytes && added.special) words.erase(*bytes);
  }
  return words;
}

void read_model(const json& model, JsonTokenizerFile& result, Problems& problems) {
  const auto& ids = result.tokenizer.ids;
  const std::vector<BpeModel::Merge> merges = read_merges(member(model, "merges"), ids, problems);
  refuse_text(model, "continuing_subword_prefix", problems);
  refuse_text(model, "end_of_word_suffix", problems);
  if (find_double(model, "dropout", problems).value_or(0) != 0)
    problems.add("model.dropout is ", describe(member(model, "dropout")),
                 ", which is not supported");

  BpeModel::Options options{
      .byte_level = result.tokenizer.pipeline.byte_level,
      .byte_fallback = get_bool_or(model, "byte_fallback", problems, false),
      .fuse_unk = get_bool_or(model, "fuse_unk", problems, false),
      .ignore_merges = get_bool_or(model, "ignore_merges", problems, false),
  };
  if (const auto unk = find_string(model, "unk_token", problems)) {
    const auto it = ids.find(*unk);
    if (it != ids.end()) {
      options.unk = it->second;
      result.unk = it->second;
    } else {
      problems.add("model.unk_token is ", in_quotes(*unk), ", which is not in model.vocab");
    }
  }
  if (!problems.empty()) return;
  result.tokenizer.pipeline.bpe =
      BpeModel(ids, merges, options.ignore_merges ? whole_words(result) : StringMap<std::int32_t>{},
               options);
}

// Files of early versions name no type; a BPE model is what has merges.
bool is_bpe(const json& model) {
  const json& type = member(model, "type");
  return type.is_null() ? model.contains("merges") : type == "BPE";
}

}  // namespace

std::vector<JsonComponent> json_components(const json& file,
                                           const std::string& key,
                                           const std::string& list_key,
                                           Problems& problems) {
  constexpr std::size_t kMost = 32;
  std::vector<JsonComponent> result;
  std::vector<JsonComponent> open = {{&member(file, key.c_str()), key, {}}};  // last first
  if (open.front().value->is_null()) return result;
  while (!open.empty()) {
    JsonComponent next = std::move(open.back());
    open.pop_back();
    const json* type = next.value->is_object() ? &member(*next.value, "type") : nullptr;
    if (type == nullptr || !type->is_string()) {
      problems.add(next.where, " is ", describe(*next.value),
                   "; expected an object with a \"type\"");
      continue;
    }
    next.type = type->get<std::string>();
    if (next.type != "Sequence") {
      result.push_back(std::move(next));
      continue;
    }
    const json& list = member(*next.value, list_key.c_str());
    if (!list.is_array()) {
      problems.add(next.where, ".", list_key, " is ", describe(list), "; expected a list");
      continue;
    }
    if (list.size() + result.size() + open.size() > kMost) {
      problems.add(next.where, ".", list_key, " has ", list.size(), " steps; expected at most ",
                   kMost);
      continue;
    }
    for (std::size_t i = list.size(); i-- > 0;)
      open.push_back({&list[i], concat(next.where, ".", list_key, "[", i, "]"), {}});
  }
  return result;
}

JsonTokenizerFile read_tokenizer_json(const json& file, Problems& problems) {
  JsonTokenizerFile result;
  TextPipeline& pipeline = result.tokenizer.pipeline;
  read_normalizer(file, pipeline, problems);
  read_pre_tokenizer(file, pipeline, problems);
  read_decoder(file, result.tokenizer.decoder, problems);
  const json& model = member(file, "model");
  if (!model.is_object()) {
    problems.add("model is ", describe(model), "; expected an object");
    return result;
  }
  if (!is_bpe(model)) {
    problems.add("model.type is ", describe(member(model, "type")),
                 ", which is not supported; supported: \"BPE\"");
    return result;
  }
  const json& vocab = member(model, "vocab");
  const json& added = member(file, "added_tokens");
  const int64_t limit = max_token_id(vocab.size() + added.size());
  read_vocabulary(vocab, limit, result, problems);
  read_added_tokens(added, limit, result, problems);
  read_model(model, result, problems);
  read_post_processor(file, result, problems);
  return result;
}

}  // namespace lorapp::detail
