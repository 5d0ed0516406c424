// TokenDecoder: decoder steps, each of which hands on what it is sure of.
#include "data/token_decoder.hpp"

#include <lorapp/data/bpe.hpp>
#include <lorapp/data/unicode.hpp>

#include <algorithm>
#include <optional>
#include <utility>

namespace lorapp::detail {

namespace {

std::string replaced(std::string_view token, std::string_view pattern, std::string_view content) {
  std::string result;
  for (std::size_t at = 0;;) {
    const std::size_t found = token.find(pattern, at);
    result += token.substr(at, found == std::string_view::npos ? found : found - at);
    if (found == std::string_view::npos) return result;
    result += content;
    at = found + pattern.size();
  }
}

// NN of <0xNN>.
std::optional<char> byte_of(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return std::nullopt;
  int value = 0;
  for (const char c : token.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : -1;
    if (digit < 0) return std::nullopt;
    value = value * 16 + digit;
  }
  return static_cast<char>(value);
}

// Takes from the front of `bytes` what is certain to be text whatever follows, U+FFFD for each
// longest beginning of a character that goes wrong.
std::string take_text(std::string& bytes, bool is_end) {
  std::string text;
  std::size_t at = 0;
  while (at < bytes.size()) {
    const Utf8Step step = utf8_step(bytes, at);
    if (step.kind == Utf8Step::Kind::incomplete && !is_end) break;
    text += step.valid() ? std::string_view(bytes).substr(at, step.length) : kReplacementCharacter;
    at += step.length;
  }
  bytes.erase(0, at);
  return text;
}

}  // namespace

TokenDecoder::TokenDecoder(std::vector<DecoderStep> steps) {
  bool fused = false;
  for (DecoderStep& step : steps) {
    const bool fuses =
        step.kind == DecoderStep::Kind::fuse || step.kind == DecoderStep::Kind::byte_level;
    states_.push_back({.step = std::move(step), .fused = fused});
    fused = fused || fuses;
  }
}

std::string TokenDecoder::push(std::string_view token) {
  std::string text;
  run(0, token, text);
  return text;
}

std::string TokenDecoder::finish() {
  std::string text;
  for (std::size_t i = 0; i < states_.size(); ++i) end_run(i, text);
  for (State& state : states_) {
    state.started = false;
    state.cut = 0;
    state.held.clear();
  }
  return text;
}

void TokenDecoder::run(std::size_t index, std::string_view token, std::string& text) {
  if (index == states_.size()) {
    text += token;
    return;
  }
  State& state = states_[index];
  const DecoderStep& step = state.step;
  switch (step.kind) {
    case DecoderStep::Kind::replace:
      return run(index + 1, replaced(token, step.pattern, step.content), text);
    case DecoderStep::Kind::byte_fallback:
      if (const auto byte = byte_of(token)) {
        state.held += *byte;
        return;
      }
      end_run(index, text);
      return run(index + 1, token, text);
    case DecoderStep::Kind::fuse:
      return run(index + 1, token, text);
    case DecoderStep::Kind::strip:
      return strip(index, token, text);
    case DecoderStep::Kind::metaspace: {
      const bool drop = step.drop_first && !std::exchange(state.started, true);
      return run(index + 1, replaced(token, step.pattern, drop ? "" : " "), text);
    }
    case DecoderStep::Kind::byte_level:
      return byte_level(index, token, text);
    case DecoderStep::Kind::spaces:
      if (std::exchange(state.started, true)) text += ' ';
      return run(index + 1, token, text);
  }
}

// What a step holds back is handed on: nothing more of its run comes.
void TokenDecoder::end_run(std::size_t index, std::string& text) {
  State& state = states_[index];
  if (state.held.empty()) return;
  std::string run_bytes = std::exchange(state.held, {});
  if (state.step.kind == DecoderStep::Kind::byte_fallback) {
    if (is_utf8(run_bytes)) return run(index + 1, run_bytes, text);
    // Each wrong byte is a token to the steps that follow.
    for (std::size_t i = 0; i < run_bytes.size(); ++i) run(index + 1, kReplacementCharacter, text);
  } else if (state.step.kind == DecoderStep::Kind::byte_level) {
    run(index + 1, take_text(run_bytes, true), text);
  }
  // What strip holds back is what it takes off the end.
}

void TokenDecoder::strip(std::size_t index, std::string_view token, std::string& text) {
  State& state = states_[index];
  const DecoderStep& step = state.step;
  if (!state.fused) {
    state.cut = 0;
    state.started = false;
    state.held.clear();
  }
  // The start: `content` as long as nothing else has come.
  while (!state.started && state.cut < step.start && token.starts_with(step.content)) {
    token.remove_prefix(step.content.size());
    ++state.cut;
  }
  if (token.empty()) {
    if (!state.fused) run(index + 1, token, text);
    return;
  }
  state.started = true;
  // The end: up to `stop` times `content` are held back until something follows.
  std::string bytes = std::exchange(state.held, {}) + std::string(token);
  std::size_t kept = bytes.size();
  for (std::size_t i = 0;
       i < step.stop && std::string_view(bytes).substr(0, kept).ends_with(step.content); ++i)
    kept -= step.content.size();
  state.held = bytes.substr(kept);
  run(index + 1, std::string_view(bytes).substr(0, kept), text);
}

void TokenDecoder::byte_level(std::size_t index, std::string_view token, std::string& text) {
  State& state = states_[index];
  const auto bytes = byte_level_bytes(token);
  state.held += bytes ? std::string_view(*bytes) : token;
  run(index + 1, take_text(state.held, false), text);
}

}  // namespace lorapp::detail
