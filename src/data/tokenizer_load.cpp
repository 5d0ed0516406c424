// Tokenizer::from_pretrained: the files of a folder, checked against each other.
#include "data/tokenizer_impl.hpp"
#include "json_file.hpp"
#include "torch_flags.hpp"

#include <algorithm>
#include <system_error>
#include <unordered_set>
#include <utility>

namespace lorapp {

namespace {

namespace fs = std::filesystem;
using Impl = Tokenizer::Impl;
using detail::AddedToken;
using detail::kTokenizerOp;
using nlohmann::json;

constexpr const char* kModelFile = "tokenizer.model";
constexpr const char* kJsonFile = "tokenizer.json";
constexpr const char* kConfigFile = "tokenizer_config.json";
constexpr const char* kSpecialMapFile = "special_tokens_map.json";
constexpr const char* kAddedFile = "added_tokens.json";
// Kept so that save_pretrained() hands on the whole tokenizer; their content is not read.
// (A tokenizer.json is read where there is no tokenizer.model.)
constexpr const char* kFilesToKeep[] = {kJsonFile, "chat_template.jinja", "chat_template.json"};

// A special token is written as a string or as an object with its content.
std::optional<std::string> token_content(const json& object, const char* key, Problems& problems) {
  const auto it = object.find(key);
  if (it == object.end() || it->is_null()) return std::nullopt;
  if (it->is_string()) return it->get<std::string>();
  if (it->is_object()) {
    const auto content = it->find("content");
    if (content != it->end() && content->is_string()) return content->get<std::string>();
  }
  problems.add(key, " is ", detail::describe(*it),
               "; expected a string or an object with the string \"content\"");
  return std::nullopt;
}

class Loader {
 public:
  explicit Loader(const fs::path& directory)
      : directory_(directory), problems_(std::string(kTokenizerOp), directory.string()) {}

  void load(Impl& impl) {
    read_files(impl.files);
    const Defaults defaults = impl.files.contains(kModelFile) ? load_model(impl) : load_json(impl);
    json config = read_object(impl.files, kConfigFile);
    const json special_map = read_object(impl.files, kSpecialMapFile);
    for (AddedToken& token : added_tokens(impl, config, read_object(impl.files, kAddedFile)))
      add_token(impl, std::move(token));

    impl.bos = special(impl, config, special_map, "bos_token", defaults.bos);
    impl.eos = special(impl, config, special_map, "eos_token", defaults.eos);
    // A tokenizer.json's unk is a token like others unless the configuration calls it special.
    impl.unk =
        special(impl, config, special_map, "unk_token", impl.json ? std::nullopt : defaults.unk);
    if (!impl.unk) impl.unk = defaults.unk;
    impl.pad = special(impl, config, special_map, "pad_token", defaults.pad);
    mark_additional(impl, config);
    mark_additional(impl, special_map);

    const auto add_bos = detail::find_bool(config, "add_bos_token", problems_);
    impl.add_bos = add_bos.value_or(defaults.add_bos.value_or(impl.bos.has_value()));
    if (impl.add_bos && !impl.bos)
      problems_.add(kConfigFile, ": add_bos_token is true, but there is no bos token");
    impl.add_eos =
        detail::get_bool_or(config, "add_eos_token", problems_, defaults.add_eos.value_or(false));
    if (impl.add_eos && !impl.eos)
      problems_.add(kConfigFile, ": add_eos_token is true, but there is no eos token");
    impl.legacy = detail::get_bool_or(config, "legacy", problems_, false);
    impl.model_puts_space = !impl.json && puts_space(impl);
    impl.prefix_space =
        impl.model_puts_space && detail::get_bool_or(config, "add_prefix_space", problems_, true);
    if (impl.json) {
      check_template(impl.bos, defaults.bos, "bos_token", "before");
      check_template(impl.eos, defaults.eos, "eos_token", "behind");
    }
    problems_.throw_if_any();
    if (impl.json) {
      finish_json(impl);
    } else {
      make_finders(impl);
    }
  }

 private:
  // What holds where the configuration says nothing.
  struct Defaults {
    std::optional<int64_t> bos{}, eos{}, unk{}, pad{};
    std::optional<bool> add_bos{}, add_eos{};
  };

  void read_files(std::map<std::string, std::string>& files) {
    std::error_code error;
    const auto status = fs::status(directory_, error);
    LORAPP_CHECK(status.type() != fs::file_type::none, kTokenizerOp, directory_.string(), ": ",
                 error.message());
    LORAPP_CHECK(fs::is_directory(status), kTokenizerOp, directory_.string(), ": no such folder");
    LORAPP_CHECK(is_there(kModelFile) || is_there(kJsonFile), kTokenizerOp, directory_.string(),
                 ": has neither ", kModelFile, " (a sentencepiece model) nor ", kJsonFile);
    for (const char* name : {kModelFile, kConfigFile, kSpecialMapFile, kAddedFile})
      read_if_there(name, files);
    for (const char* name : kFilesToKeep) read_if_there(name, files);
  }

  void read_if_there(const char* name, std::map<std::string, std::string>& files) {
    if (is_there(name)) files[name] = detail::read_text_file(directory_ / name, kTokenizerOp);
  }

  // A file that cannot be looked at counts as there: reading it says why.
  bool is_there(const char* name) const {
    std::error_code ignored;
    return fs::status(directory_ / name, ignored).type() != fs::file_type::not_found;
  }

  json read_object(const std::map<std::string, std::string>& files, const char* name) {
    const auto it = files.find(name);
    if (it == files.end()) return json::object();
    const std::string path = (directory_ / name).string();
    json value = detail::parse_json(it->second, kTokenizerOp, path);
    LORAPP_CHECK(value.is_object(), kTokenizerOp, path, ": holds ", detail::describe(value),
                 "; expected an object {…}");
    return value;
  }

  Defaults load_model(Impl& impl) {
    const std::string& bytes = impl.files.at(kModelFile);
    detail::repair_torch_flags();  // sentencepiece has been loaded by now
    const auto status = impl.model.LoadFromSerializedProto(bytes);
    LORAPP_CHECK(status.ok(), kTokenizerOp, (directory_ / kModelFile).string(),
                 ": is not a sentencepiece model (", bytes.size(), " bytes): ", status.message());
    LORAPP_CHECK(impl.model.GetPieceSize() > 0, kTokenizerOp, (directory_ / kModelFile).string(),
                 ": holds no pieces");
    add_vocabulary(impl);
    const auto own = [](int id) { return id >= 0 ? std::optional<int64_t>(id) : std::nullopt; };
    return {.bos = own(impl.model.bos_id()),
            .eos = own(impl.model.eos_id()),
            .unk = own(impl.model.unk_id()),
            .pad = own(impl.model.pad_id())};
  }

  Defaults load_json(Impl& impl) {
    Problems problems(std::string(kTokenizerOp), (directory_ / kJsonFile).string());
    detail::JsonTokenizerFile file =
        detail::read_tokenizer_json(read_object(impl.files, kJsonFile), problems);
    problems.throw_if_any();
    impl.json = std::move(file.tokenizer);
    impl.vocabulary = std::move(file.vocabulary);
    for (AddedToken& token : file.added) add_token(impl, std::move(token));
    for (const auto& id : {file.before, file.after}) {
      if (id && (*id >= static_cast<int64_t>(impl.vocabulary.size()) || !impl.entry(*id).known))
        problems.add("the post-processor's token ", *id, " is not in the vocabulary");
    }
    problems.throw_if_any();
    return {.bos = file.before,
            .eos = file.after,
            .unk = file.unk,
            .pad = {},
            .add_bos = file.before.has_value(),
            .add_eos = file.after.has_value()};
  }

  // A tokenizer.json's template may only put around a text what the configuration calls bos and
  // eos.
  void check_template(const std::optional<int64_t>& id,
                      const std::optional<int64_t>& in_template,
                      const char* key,
                      const char* where) {
    if (!in_template || id == in_template) return;
    problems_.add(kJsonFile, ": the post-processor puts token ", *in_template, " ", where,
                  " a text, but ", key, " is ", id ? std::to_string(*id) : "none");
  }

  void add_vocabulary(Impl& impl) {
    impl.vocabulary.resize(static_cast<std::size_t>(impl.model.GetPieceSize()));
    for (int id = 0; id < impl.model.GetPieceSize(); ++id) {
      auto& entry = impl.vocabulary[static_cast<std::size_t>(id)];
      entry.token = impl.model.IdToPiece(id);
      entry.known = true;
      entry.special = impl.model.IsControl(id) || impl.model.IsUnknown(id);
      if (impl.model.IsByte(id))
        entry.byte = static_cast<char>(std::stoi(entry.token.substr(3, 2), nullptr, 16));
    }
  }

  // added_tokens_decoder {"id": {content, special, …}}, and the older added_tokens.json {content:
  // id}.
  std::vector<AddedToken> added_tokens(const Impl& impl, const json& config, const json& older) {
    std::vector<AddedToken> tokens;
    const int64_t limit = detail::max_token_id(impl.vocabulary.size());
    const auto valid_id = [limit](int64_t id) { return id >= 0 && id < limit; };
    if (const json* decoder = detail::find_object(config, "added_tokens_decoder", problems_)) {
      for (const auto& [key, value] : decoder->items()) {
        const bool digits = !key.empty() && key.size() <= 9 &&
                            key.find_first_not_of("0123456789") == std::string::npos;
        const int64_t id = digits ? std::stoll(key) : -1;
        const auto content = token_content({{"token", value}}, "token", problems_);
        if (!valid_id(id) || !content || content->empty() || !value.is_object()) {
          problems_.add(kConfigFile, ": added_tokens_decoder has \"", key,
                        "\": ", detail::describe(value), "; expected an id below ", limit,
                        " and an object with a non-empty \"content\"");
          continue;
        }
        const bool single_word = detail::get_bool_or(value, "single_word", problems_, false);
        if (single_word && !impl.json) {
          problems_.add(kConfigFile, ": added token ", detail::describe(*content),
                        " has single_word, which is not supported");
        }
        const bool special = detail::get_bool_or(value, "special", problems_, false);
        tokens.push_back(
            {.id = id,
             .content = *content,
             .special = special,
             .strip_left = detail::get_bool_or(value, "lstrip", problems_, false),
             .strip_right = detail::get_bool_or(value, "rstrip", problems_, false),
             .single_word = single_word,
             .normalized = detail::get_bool_or(value, "normalized", problems_, !special)});
      }
    }
    for (const auto& [content, id] : older.items()) {
      if (content.empty() || !id.is_number_integer() || !valid_id(id.get<int64_t>())) {
        problems_.add(kAddedFile, " has \"", content, "\": ", detail::describe(id),
                      "; expected an id below ", limit);
        continue;
      }
      const auto same = [&content = content](const AddedToken& t) { return t.content == content; };
      const bool listed = std::any_of(tokens.begin(), tokens.end(), same);
      if (!listed)
        tokens.push_back({.id = id.get<int64_t>(), .content = content, .special = false});
    }
    return tokens;
  }

  void add_token(Impl& impl, AddedToken token) {
    const auto known = impl.find_token(token.content);
    if (known && *known != token.id) {
      problems_.add("added token ", detail::describe(token.content), " has id ", token.id,
                    ", but is known as id ", *known);
      return;
    }
    const auto index = static_cast<std::size_t>(token.id);
    if (index >= impl.vocabulary.size()) impl.vocabulary.resize(index + 1);
    auto& entry = impl.vocabulary[index];
    if (impl.added_ids.contains(entry.token) && entry.token != token.content) {
      problems_.add("added tokens ", detail::describe(entry.token), " and ",
                    detail::describe(token.content), " share id ", token.id);
      return;
    }
    entry.token = token.content;
    entry.known = true;
    entry.special = entry.special || token.special;
    impl.added_ids[token.content] = token.id;
    // Named twice, in tokenizer.json and in the configuration: the first says how it is matched.
    const bool listed = std::any_of(added_.begin(), added_.end(),
                                    [&](const AddedToken& t) { return t.id == token.id; });
    if (!listed) added_.push_back(std::move(token));
  }

  // The configuration's token, else the special tokens map's, else the file's own id.
  std::optional<int64_t> special(Impl& impl,
                                 const json& config,
                                 const json& special_map,
                                 const char* key,
                                 std::optional<int64_t> own_id) {
    auto content = token_content(config, key, problems_);
    if (!content) content = token_content(special_map, key, problems_);
    std::optional<int64_t> id;
    if (content) {
      id = impl.find_token(*content);
      if (!id)
        problems_.add(key, " is ", detail::describe(*content),
                      ", which has no id in the vocabulary");
    } else {
      id = own_id;
    }
    if (id) mark_special(impl, *id);
    return id;
  }

  // additional_special_tokens (extra_special_tokens since transformers 5): a list of tokens.
  void mark_additional(Impl& impl, const json& object) {
    for (const char* key : {"additional_special_tokens", "extra_special_tokens"}) {
      const auto list = object.find(key);
      if (list == object.end() || list->is_null()) continue;
      for (const auto& [name, value] : list->items()) {
        const auto content = token_content({{key, value}}, key, problems_);
        if (!content) continue;
        const auto id = impl.find_token(*content);
        if (id) {
          mark_special(impl, *id);
        } else {
          problems_.add(key, " has ", detail::describe(*content),
                        ", which has no id in the vocabulary");
        }
      }
    }
  }

  void mark_special(Impl& impl, int64_t id) {
    impl.vocabulary[static_cast<std::size_t>(id)].special = true;
  }

  bool puts_space(const Impl& impl) {
    std::vector<std::string> pieces;
    return impl.model.Encode("a", &pieces).ok() && !pieces.empty() &&
           pieces.front().starts_with(detail::kSpaceMark);
  }

  // The added tokens and those that are special otherwise, by id.
  std::vector<AddedToken> tokens_to_find(const Impl& impl) const {
    std::vector<AddedToken> tokens = added_;
    std::unordered_set<int64_t> listed;
    for (const AddedToken& token : added_) listed.insert(token.id);
    for (int64_t id = 0; id < static_cast<int64_t>(impl.vocabulary.size()); ++id) {
      const auto& entry = impl.vocabulary[static_cast<std::size_t>(id)];
      if (entry.special && !listed.contains(id))
        tokens.push_back({.id = id, .content = entry.token});
    }
    for (AddedToken& token : tokens)
      token.special = impl.vocabulary[static_cast<std::size_t>(token.id)].special;
    return tokens;
  }

  void make_finders(Impl& impl) {
    std::vector<AddedToken> all = tokens_to_find(impl), plain;
    // The model finds its own user-defined pieces; what was added behind it has to be found for it.
    for (const AddedToken& token : all) {
      if (!token.special && token.id >= impl.model.GetPieceSize()) plain.push_back(token);
    }
    impl.plain_added = detail::AddedTokenFinder(std::move(plain));
    impl.all_added = detail::AddedTokenFinder(std::move(all));
  }

  void finish_json(Impl& impl) {
    std::vector<AddedToken> raw, normalized;
    for (AddedToken& token : tokens_to_find(impl)) {
      if (!token.normalized) {
        raw.push_back(std::move(token));
        continue;
      }
      std::string form = impl.json->pipeline.normalize(token.content);
      if (form != token.content) impl.json->decoded_as[token.id] = form;
      token.content = std::move(form);
      normalized.push_back(std::move(token));
    }
    impl.json->pipeline.raw_added = detail::AddedTokenFinder(std::move(raw));
    impl.json->pipeline.normalized_added = detail::AddedTokenFinder(std::move(normalized));
  }

  fs::path directory_;
  Problems problems_;
  std::vector<AddedToken> added_;
};

}  // namespace

Tokenizer Tokenizer::from_pretrained(const fs::path& directory) {
  auto impl = std::make_shared<Impl>();
  Loader(directory).load(*impl);
  return Tokenizer(std::move(impl));
}

}  // namespace lorapp
