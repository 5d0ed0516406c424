// A tokenizer's regular expression as a list of steps.
#pragma once

#include <lorapp/data/regex_parser.hpp>

#include <bitset>
#include <cstddef>
#include <string_view>
#include <utility>
#include <vector>

namespace lorapp::detail {

/// The bytes that a match may begin with; `any` if it may begin with whatever stands there.
struct FirstBytes {
  std::bitset<256> bytes{};
  bool any = false;

  bool allow(std::string_view text, std::size_t at) const {
    return any || (at < text.size() && bytes[static_cast<unsigned char>(text[at])]);
  }
};

struct RegexStep {
  enum class Op {
    set,     ///< one character of set `a`
    run,     ///< least to most characters of set `a`
    split,   ///< goes on at `a` (if the next byte is in first `least`), else at `b`
    jump,    ///< goes on at `a`
    look,    ///< what stands from here to `a` matches, or not; goes on at `a`
    behind,  ///< a character of set `a` stands before, or not
    atomic,  ///< what stands from here to `a`; goes on at `a`
    line_begin,
    line_end,
    text_begin,
    text_end,
    done,  ///< a match, of a part or of all
  };
  Op op = Op::done;
  std::size_t a = 0, b = 0;
  std::size_t least = 0, most = 0;
  RegexNode::Greed greed = RegexNode::Greed::greedy;
  bool negated = false;
};

/// The steps of an expression.
class RegexProgram {
 public:
  explicit RegexProgram(const RegexNode& tree) {
    first = first_of(tree);
    emit(tree);
    add({});
  }

  std::vector<RegexStep> steps;
  std::vector<CharacterSet> sets;
  std::vector<FirstBytes> firsts;
  FirstBytes first;

 private:
  using Kind = RegexNode::Kind;
  using Op = RegexStep::Op;
  static constexpr std::size_t kMaxSteps = 8192;

  std::size_t add(RegexStep step) {
    if (steps.size() >= kMaxSteps)
      throw RegexError(
          concat("it takes more than ", kMaxSteps, " steps, its counts being unrolled"));
    steps.push_back(step);
    return steps.size() - 1;
  }
  std::size_t add_set(const CharacterSet& set) {
    sets.push_back(set);
    return sets.size() - 1;
  }

  static FirstBytes first_of(const RegexNode& node) {
    FirstBytes first;
    switch (node.kind) {
      case Kind::set:
        for (char32_t code = 0; code < 0x80; ++code) first.bytes[code] = node.set.contains(code);
        for (std::size_t lead = 0xc2; lead < 0xf5 && node.set.reaches_beyond_ascii(); ++lead)
          first.bytes[lead] = true;
        return first;
      case Kind::sequence:
        for (const RegexNode& part : node.parts) {
          const FirstBytes own = first_of(part);
          const bool assertion = part.kind == Kind::look || part.kind >= Kind::line_begin;
          if (!assertion) join(first, own);
          if (!part.may_be_empty()) return first;
        }
        first.any = true;
        return first;
      case Kind::choice:
        for (const RegexNode& part : node.parts) join(first, first_of(part));
        return first;
      case Kind::repeat:
      case Kind::atomic:
        first = first_of(node.parts[0]);
        first.any = first.any || node.may_be_empty();
        return first;
      default:
        first.any = true;
        return first;
    }
  }
  static void join(FirstBytes& first, const FirstBytes& more) {
    first.bytes |= more.bytes;
    first.any = first.any || more.any;
  }

  // A split whose first way is what follows it.
  std::size_t add_split(const RegexNode& way) {
    firsts.push_back(first_of(way));
    const std::size_t at = add({.op = Op::split, .least = firsts.size() - 1});
    steps[at].a = at + 1;
    return at;
  }

  void emit(const RegexNode& node) {
    switch (node.kind) {
      case Kind::set:
        add({.op = Op::set, .a = add_set(node.set)});
        return;
      case Kind::sequence:
        for (const RegexNode& part : node.parts) emit(part);
        return;
      case Kind::choice: {
        std::vector<std::size_t> ends;
        for (std::size_t i = 0; i + 1 < node.parts.size(); ++i) {
          const std::size_t split = add_split(node.parts[i]);
          emit(node.parts[i]);
          ends.push_back(add({.op = Op::jump}));
          steps[split].b = steps.size();
        }
        emit(node.parts.back());
        for (const std::size_t end : ends) steps[end].a = steps.size();
        return;
      }
      case Kind::repeat:
        return emit_repeat(node);
      case Kind::look:
        if (node.behind) {
          const RegexNode& inner = node.parts[0];
          const RegexNode& one = inner.kind == Kind::set ? inner : inner.parts[0];
          add({.op = Op::behind, .a = add_set(one.set), .negated = node.negated});
          return;
        }
        return emit_part(node, Op::look);
      case Kind::atomic:
        return emit_part(node, Op::atomic);
      case Kind::line_begin:
        add({.op = Op::line_begin});
        return;
      case Kind::line_end:
        add({.op = Op::line_end});
        return;
      case Kind::text_begin:
        add({.op = Op::text_begin});
        return;
      case Kind::text_end:
        add({.op = Op::text_end});
        return;
    }
  }

  void emit_part(const RegexNode& node, Op op) {
    const std::size_t at = add({.op = op, .negated = node.negated});
    emit(node.parts[0]);
    add({});
    steps[at].a = steps.size();
  }

  void emit_repeat(const RegexNode& node) {
    const RegexNode& part = node.parts[0];
    const bool one_set =
        part.kind == Kind::sequence && part.parts.size() == 1 && part.parts[0].kind == Kind::set;
    if (part.kind == Kind::set || one_set) {
      add({.op = Op::run,
           .a = add_set(one_set ? part.parts[0].set : part.set),
           .least = node.least,
           .most = node.most,
           .greed = node.greed});
      return;
    }
    std::size_t atomic = 0;
    if (node.greed == RegexNode::Greed::possessive) atomic = add({.op = Op::atomic});
    for (std::size_t i = 0; i < node.least; ++i) emit(part);
    const bool lazy = node.greed == RegexNode::Greed::lazy;
    const bool endless = node.most == RegexNode::kNoLimit;
    std::vector<std::size_t> splits;
    for (std::size_t i = node.least; endless ? i == node.least : i < node.most; ++i) {
      splits.push_back(add_split(part));
      emit(part);
      if (endless) add({.op = Op::jump, .a = splits.back()});
    }
    for (const std::size_t split : splits) {
      steps[split].b = steps.size();
      if (!lazy) continue;
      std::swap(steps[split].a, steps[split].b);
      steps[split].least = always();
    }
    if (node.greed == RegexNode::Greed::possessive) {
      add({});
      steps[atomic].a = steps.size();
    }
  }

  std::size_t always() {
    firsts.push_back({.any = true});
    return firsts.size() - 1;
  }
};

}  // namespace lorapp::detail
