// tokenizer.json: its normalizer, pre-tokenizer, post-processor and decoder. Each is a component or
// a Sequence of them; what is not supported is refused by name.
#include <lorapp/data/unicode.hpp>
#include "data/tokenizer_json.hpp"
#include "json_file.hpp"

#include <algorithm>
#include <memory>
#include <utility>

namespace lorapp::detail {

namespace {

using nlohmann::json;

constexpr std::size_t kMaxContent = 16;  // bytes that a step may put into a text, once a place

void refuse(const JsonComponent& step, std::string_view supported, Problems& problems) {
  problems.add(step.where, " is ", in_quotes(step.type),
               ", which is not supported; supported: ", supported, ", Sequence");
}

// {"String": "…"}: what a Replace or a Split looks for. A regular expression is left to the caller.
std::optional<std::string> pattern_of(const JsonComponent& step, const char* kind) {
  const auto pattern = step.value->find("pattern");
  if (pattern == step.value->end() || !pattern->is_object()) return std::nullopt;
  const auto it = pattern->find(kind);
  if (it == pattern->end() || !it->is_string()) return std::nullopt;
  return it->get<std::string>();
}

std::string text_field(const JsonComponent& step, const char* key, Problems& problems) {
  Problems own("", "");
  std::string text = get_string(*step.value, key, own);
  if (!own.empty() || text.size() > kMaxContent) {
    const auto it = step.value->find(key);
    problems.add(step.where, ".", key, " is ", it == step.value->end() ? "missing" : describe(*it),
                 "; expected a text of at most ", kMaxContent, " bytes");
    return {};
  }
  return text;
}

bool bool_field(const JsonComponent& step, const char* key, bool fallback, Problems& problems) {
  const auto it = step.value->find(key);
  if (it == step.value->end() || it->is_null()) return fallback;
  if (it->is_boolean()) return it->get<bool>();
  problems.add(step.where, ".", key, " is ", describe(*it), "; expected true or false");
  return fallback;
}

// The text that a Replace looks for; empty, and a problem, if it is none.
std::string replace_pattern(const JsonComponent& step, Problems& problems) {
  auto pattern = pattern_of(step, "String");
  if (pattern && !pattern->empty()) return *pattern;
  const auto it = step.value->find("pattern");
  problems.add(step.where, ".pattern is ", it == step.value->end() ? "missing" : describe(*it),
               "; supported: {\"String\": \"…\"} with a text that is not empty");
  return {};
}

// A Metaspace's character, U+2581 where none is given.
std::string replacement_of(const JsonComponent& step, Problems& problems) {
  if (!step.value->contains("replacement")) return std::string(kSpaceMark);
  std::string text = text_field(step, "replacement", problems);
  const bool one = !text.empty() && utf8_step(text, 0).length == text.size();
  if (!one) problems.add(step.where, ".replacement is not one character");
  return text;
}

Metaspace::Prepend prepend_scheme(const JsonComponent& step, Problems& problems) {
  using Prepend = Metaspace::Prepend;
  // Files of early versions say add_prefix_space instead.
  const bool prefix = bool_field(step, "add_prefix_space", true, problems);
  const auto it = step.value->find("prepend_scheme");
  if (it == step.value->end() || it->is_null()) return prefix ? Prepend::always : Prepend::never;
  if (*it == "never") return Prepend::never;
  if (*it == "first" || *it == "always") {
    if (!prefix) {
      problems.add(step.where, ".add_prefix_space is false, but prepend_scheme is ", describe(*it));
    }
    return *it == "first" ? Prepend::first : Prepend::always;
  }
  problems.add(step.where, ".prepend_scheme is ", describe(*it),
               "; expected \"always\", \"first\" or \"never\"");
  return Prepend::always;
}

SplitBehavior split_behavior(const JsonComponent& step, const char* fallback, Problems& problems) {
  constexpr std::pair<const char*, SplitBehavior> kNames[] = {
      {"Removed", SplitBehavior::removed},
      {"Isolated", SplitBehavior::isolated},
      {"MergedWithPrevious", SplitBehavior::merged_with_previous},
      {"MergedWithNext", SplitBehavior::merged_with_next},
      {"Contiguous", SplitBehavior::contiguous}};
  const auto it = step.value->find("behavior");
  const json name = it != step.value->end() ? *it : fallback != nullptr ? json(fallback) : json();
  for (const auto& [known, behavior] : kNames)
    if (name == known) return behavior;
  problems.add(step.where, ".behavior is ", describe(name),
               "; expected Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous");
  return SplitBehavior::isolated;
}

void read_split(const JsonComponent& step, TextPipeline& pipeline, Problems& problems) {
  SplitOptions options{.behavior = split_behavior(step, nullptr, problems),
                       .invert = bool_field(step, "invert", false, problems),
                       .on_bytes = pipeline.byte_level};
  if (const auto text = pattern_of(step, "String"); text && !text->empty()) {
    pipeline.splits.emplace_back(*text, options);
    return;
  }
  const auto regex = pattern_of(step, "Regex");
  if (!regex) {
    const auto it = step.value->find("pattern");
    problems.add(step.where, ".pattern is ", it == step.value->end() ? "missing" : describe(*it),
                 "; expected {\"Regex\": …} or {\"String\": …} with a text that is not empty");
    return;
  }
  // The known patterns cover all of a text, so that to cut at matches and to drop what lies between
  // them is the same.
  const bool cuts = (options.behavior == SplitBehavior::isolated) ||
                    (options.behavior == SplitBehavior::removed && options.invert);
  if (const auto known = find_split_pattern(*regex); known && cuts && !options.on_bytes) {
    pipeline.splits.emplace_back(*known);
    return;
  }
  try {
    pipeline.splits.emplace_back(Regex(*regex), options);
  } catch (const RegexError& error) {
    problems.add(step.where, ".pattern is ", in_quotes(*regex), ", of which ", error.what());
  }
}

void read_byte_level(const JsonComponent& step, TextPipeline& pipeline, Problems& problems) {
  pipeline.byte_level = true;
  pipeline.add_prefix_space = bool_field(step, "add_prefix_space", true, problems);
  if (pipeline.add_prefix_space && !pipeline.splits.empty())
    problems.add(step.where, ".add_prefix_space is true behind a Split, which is not supported");
  if (bool_field(step, "use_regex", true, problems))
    pipeline.splits.emplace_back(SplitPattern::gpt2);
}

// Steps that know no pattern but a kind of characters; false if the step is none of them.
bool read_characters(const JsonComponent& step, TextPipeline& pipeline, Problems& problems) {
  const auto add = [&](const CharacterSet& set, SplitBehavior behavior) {
    pipeline.splits.emplace_back(
        std::make_shared<const CharacterSet>(set),
        SplitOptions{.behavior = behavior, .on_bytes = pipeline.byte_level});
  };
  CharacterSet spaces, punctuation, numbers;
  spaces.add_class(kWhiteSpace, false);
  punctuation.add_class(kPunctuation, false);
  numbers.add_class(kNumber, false);
  if (step.type == "Digits") {
    const bool single = bool_field(step, "individual_digits", false, problems);
    add(numbers, single ? SplitBehavior::isolated : SplitBehavior::contiguous);
  } else if (step.type == "Punctuation") {
    add(punctuation, split_behavior(step, "Isolated", problems));
  } else if (step.type == "WhitespaceSplit") {
    add(spaces, SplitBehavior::removed);
  } else if (step.type == "BertPreTokenizer") {
    add(spaces, SplitBehavior::removed);
    add(punctuation, SplitBehavior::isolated);
  } else if (step.type == "Whitespace") {
    // Words, and stretches that are neither word nor space.
    CharacterSet words;
    words.add_class(kWord, false);
    add(spaces, SplitBehavior::removed);
    add(words, SplitBehavior::contiguous);
  } else if (step.type == "CharDelimiterSplit") {
    const std::string delimiter = text_field(step, "delimiter", problems);
    const auto code = only_character(delimiter);
    if (!code) {
      problems.add(step.where, ".delimiter is not one character");
      return true;
    }
    CharacterSet set;
    set.add(*code, *code);
    add(set, SplitBehavior::removed);
  } else {
    return false;
  }
  return true;
}

// How often a Strip takes its character off an end.
std::size_t count_field(const JsonComponent& step, const char* key, Problems& problems) {
  const auto it = step.value->find(key);
  if (it != step.value->end() && it->is_number_integer() && *it >= 0 && *it <= 1024)
    return it->get<std::size_t>();
  problems.add(step.where, ".", key, " is ", it == step.value->end() ? "missing" : describe(*it),
               "; expected a number up to 1024");
  return 0;
}

// The one id that a special token of a template stands for.
std::optional<int64_t> template_id(const JsonComponent& step,
                                   const json& name,
                                   Problems& problems) {
  const auto tokens = step.value->find("special_tokens");
  if (name.is_string() && tokens != step.value->end() && tokens->is_object()) {
    const auto token = tokens->find(name.get_ref<const std::string&>());
    if (token != tokens->end() && token->is_object()) {
      const auto ids = token->find("ids");
      if (ids != token->end() && ids->is_array() && ids->size() == 1 &&
          ids->front().is_number_integer() && ids->front() >= 0 && ids->front() < kMaxVocabulary)
        return ids->front().get<int64_t>();
    }
  }
  problems.add(step.where, ".special_tokens gives ", describe(name), " no single id");
  return std::nullopt;
}

// [bos] $A [eos], each of the two at most once.
void read_template(const JsonComponent& step, JsonTokenizerFile& result, Problems& problems) {
  const auto single = step.value->find("single");
  bool fits = single != step.value->end() && single->is_array() && single->size() <= 3;
  bool text_seen = false;
  for (std::size_t i = 0; fits && i < single->size(); ++i) {
    const json& piece = (*single)[i];
    const auto special = piece.is_object() ? piece.find("SpecialToken") : piece.end();
    if (piece.is_object() && piece.contains("Sequence")) {
      fits = !std::exchange(text_seen, true);
    } else if (piece.is_object() && special != piece.end() && special->is_object()) {
      std::optional<int64_t>& place = text_seen ? result.after : result.before;
      fits = !place;
      const auto name = special->find("id");
      place = template_id(step, name == special->end() ? json() : *name, problems);
      fits = fits && place;
    } else {
      fits = false;
    }
  }
  if (!fits || !text_seen) {
    problems.add(step.where, ".single is ",
                 single == step.value->end() ? "missing" : describe(*single),
                 "; supported: one special token before the text, or behind it, or both");
  }
}

}  // namespace

void read_normalizer(const json& file, TextPipeline& pipeline, Problems& problems) {
  for (const JsonComponent& step : json_components(file, "normalizer", "normalizers", problems)) {
    Normalizer normalizer;
    if (step.type == "NFC") {
      normalizer.kind = Normalizer::Kind::nfc;
    } else if (step.type == "Prepend") {
      normalizer.kind = Normalizer::Kind::prepend;
      normalizer.content = text_field(step, "prepend", problems);
    } else if (step.type == "Replace") {
      normalizer.kind = Normalizer::Kind::replace;
      normalizer.pattern = replace_pattern(step, problems);
      normalizer.content = text_field(step, "content", problems);
    } else {
      refuse(step, "NFC, Prepend, Replace", problems);
      continue;
    }
    pipeline.normalizers.push_back(std::move(normalizer));
  }
}

void read_pre_tokenizer(const json& file, TextPipeline& pipeline, Problems& problems) {
  const auto steps = json_components(file, "pre_tokenizer", "pretokenizers", problems);
  for (const JsonComponent& step : steps) {
    if (pipeline.metaspace || (pipeline.byte_level && step.type == "ByteLevel")) {
      problems.add(step.where, " (", step.type, ") stands behind a ",
                   pipeline.metaspace ? "Metaspace" : "ByteLevel", ", which is not supported");
    }
    if (step.type == "ByteLevel") {
      read_byte_level(step, pipeline, problems);
    } else if (step.type == "Split") {
      read_split(step, pipeline, problems);
    } else if (step.type == "Metaspace") {
      if (!pipeline.splits.empty() || pipeline.byte_level)
        problems.add(step.where, " (Metaspace) stands behind another step, which is not supported");
      pipeline.metaspace = Metaspace{.replacement = replacement_of(step, problems),
                                     .prepend = prepend_scheme(step, problems),
                                     .split = bool_field(step, "split", true, problems)};
    } else if (!read_characters(step, pipeline, problems)) {
      refuse(step,
             "ByteLevel, Split, Metaspace, Digits, Punctuation, Whitespace, WhitespaceSplit, "
             "BertPreTokenizer, CharDelimiterSplit",
             problems);
    }
  }
}

void read_post_processor(const json& file, JsonTokenizerFile& result, Problems& problems) {
  bool is_template = false;
  for (const JsonComponent& step :
       json_components(file, "post_processor", "processors", problems)) {
    if (step.type == "TemplateProcessing") {
      if (std::exchange(is_template, true)) {
        problems.add(step.where, " is a second TemplateProcessing, which is not supported");
      } else {
        read_template(step, result, problems);
      }
    } else if (step.type != "ByteLevel") {  // it trims spaces off spans; ours keep them
      refuse(step, "TemplateProcessing, ByteLevel", problems);
    }
  }
}

void read_decoder(const json& file, std::vector<DecoderStep>& steps, Problems& problems) {
  using Kind = DecoderStep::Kind;
  const auto components = json_components(file, "decoder", "decoders", problems);
  bool fused = false;
  for (const JsonComponent& component : components) {
    DecoderStep step;
    if (component.type == "Replace") {
      step.kind = Kind::replace;
      step.pattern = replace_pattern(component, problems);
      step.content = text_field(component, "content", problems);
      if (step.content.size() > step.pattern.size() && !step.pattern.empty())
        problems.add(component.where,
                     ".content is longer than what it replaces, which is not supported");
    } else if (component.type == "ByteFallback") {
      step.kind = Kind::byte_fallback;
    } else if (component.type == "Fuse") {
      step.kind = Kind::fuse;
    } else if (component.type == "Strip") {
      step.kind = Kind::strip;
      step.content = text_field(component, "content", problems);
      step.start = count_field(component, "start", problems);
      step.stop = count_field(component, "stop", problems);
      if (step.content.empty() || utf8_step(step.content, 0).length != step.content.size())
        problems.add(component.where, ".content is ", in_quotes(step.content),
                     "; expected one character");
    } else if (component.type == "Metaspace") {
      step.kind = Kind::metaspace;
      step.pattern = replacement_of(component, problems);
      step.drop_first = prepend_scheme(component, problems) != Metaspace::Prepend::never;
    } else if (component.type == "ByteLevel") {
      step.kind = Kind::byte_level;
    } else {
      refuse(component, "ByteLevel, Replace, ByteFallback, Fuse, Strip, Metaspace", problems);
      continue;
    }
    if (fused && step.kind != Kind::strip)
      problems.add(component.where, " (", component.type,
                   ") stands behind a step that joins all tokens, which is not supported");
    fused = fused || step.kind == Kind::fuse || step.kind == Kind::byte_level;
    steps.push_back(std::move(step));
  }
  if (steps.empty()) steps.push_back({.kind = Kind::spaces});
}

}  // namespace lorapp::detail
