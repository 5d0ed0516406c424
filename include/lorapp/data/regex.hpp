// Regex: finds the matches of a tokenizer's regular expression, with the choices of a backtracking
// engine (the first alternative that leads to a match) and a bound on its steps.
#pragma once

#include <lorapp/data/regex_program.hpp>

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

namespace lorapp::detail {

class Regex {
 public:
  /// Throws RegexError that says what is wrong with the pattern, or not supported in it.
  explicit Regex(std::string_view pattern) {
    const RegexNode tree = RegexParser::parse(pattern);
    if (tree.may_be_empty()) throw RegexError("it may match nothing, which is not supported");
    program_ = std::make_shared<const RegexProgram>(tree);
  }

  struct Match {
    std::size_t begin = 0;
    std::size_t end = 0;
  };

  /// A search in one text of valid UTF-8, from its beginning on.
  class Search {
   public:
    Search(const Regex& regex, std::string_view text)
        : program_(*regex.program_), text_(text), left_(kStepsPerByte * (text.size() + 1024)) {}

    /// The leftmost match that begins at `from` or behind; none if there is none. Throws RegexError
    /// if it takes too many steps.
    std::optional<Match> next(std::size_t from) {
      for (std::size_t at = from; at < text_.size(); at = behind(at)) {
        if (!program_.first.allow(text_, at)) continue;
        if (!seen_.empty()) seen_ = {};  // clear() would keep the room, and walk through it
        attempt_ = 0;
        if (const auto end = run(0, at, false)) return Match{at, *end};
      }
      return std::nullopt;
    }

   private:
    using Op = RegexStep::Op;
    static constexpr std::size_t kStepsPerByte = 1000;
    static constexpr std::size_t kPlainSteps = 4096;  // of an attempt, before it remembers
    static constexpr std::size_t kMaxSeen = std::size_t{1} << 20;

    // A way that is left to try.
    struct Way {
      std::size_t step, at;
      std::size_t least = 0;  // greedy run: the place where it has its fewest characters
      std::size_t count = 0;  // lazy run: characters so far
      enum class Kind { plain, shorter, longer } kind = Kind::plain;
    };

    std::size_t behind(std::size_t at) const { return at + utf8_step(text_, at).length; }
    std::size_t before(std::size_t at) const {
      do --at;
      while ((static_cast<unsigned char>(text_[at]) & 0xc0) == 0x80);
      return at;
    }
    // The end of the character at `at` if the set has it, else `at`.
    std::size_t take(const CharacterSet& set, std::size_t at) const {
      if (at >= text_.size()) return at;
      const Utf8Step step = utf8_step(text_, at);
      return set.contains(step.code) ? at + step.length : at;
    }
    void spend(std::size_t steps) {
      attempt_ += steps;
      if (steps > left_) throw RegexError("it takes too many steps for this text");
      left_ -= steps;
    }
    // True if this attempt was at a step and place before: it failed there.
    bool failed_before(std::size_t step, std::size_t at) {
      if (attempt_ < kPlainSteps) return false;
      if (seen_.size() >= kMaxSeen) throw RegexError("it takes too many steps for this text");
      return !seen_.insert(at * program_.steps.size() + step).second;
    }

    bool holds(const RegexStep& step, std::size_t at) const {
      switch (step.op) {
        case Op::behind:
          return (at > 0 && take(program_.sets[step.a], before(at)) == at) != step.negated;
        case Op::line_begin:
          return at == 0 || (text_[at - 1] == '\n' && at < text_.size());
        case Op::line_end:
          return at == text_.size() || text_[at] == '\n';
        case Op::text_begin:
          return at == 0;
        default:
          return at == text_.size();
      }
    }

    // Where a match that begins with this step at this place ends. `part`: of a part of the
    // expression, in which nothing is remembered.
    std::optional<std::size_t> run(std::size_t step, std::size_t at, bool part) {
      const std::size_t base = ways_.size();
      for (;;) {
        spend(1);
        const RegexStep& now = program_.steps[step];
        bool fits = true;
        switch (now.op) {
          case Op::done:
            ways_.resize(base);
            return at;
          case Op::set: {
            const std::size_t end = take(program_.sets[now.a], at);
            fits = end > at;
            at = end;
            ++step;
            break;
          }
          case Op::run:
            fits = (part || !failed_before(step, at)) && begin_run(now, step, at);
            ++step;
            break;
          case Op::split: {
            fits = part || !failed_before(step, at);
            const bool first = program_.firsts[now.least].allow(text_, at);
            if (first) ways_.push_back({.step = now.b, .at = at});
            step = first ? now.a : now.b;
            break;
          }
          case Op::jump:
            step = now.a;
            break;
          case Op::look:
            fits = run(step + 1, at, true).has_value() != now.negated;
            step = now.a;
            break;
          case Op::atomic: {
            const auto end = run(step + 1, at, true);
            fits = end.has_value();
            at = end.value_or(at);
            step = now.a;
            break;
          }
          default:
            fits = holds(now, at);
            ++step;
        }
        if (!fits && !go_back(base, step, at)) return std::nullopt;
      }
    }

    // Takes the characters of a run, and leaves the other lengths to be tried later.
    bool begin_run(const RegexStep& run, std::size_t step, std::size_t& at) {
      const CharacterSet& set = program_.sets[run.a];
      const bool lazy = run.greed == RegexNode::Greed::lazy;
      const std::size_t most = lazy ? run.least : run.most;
      std::size_t count = 0, enough = at;
      for (; count < most; ++count) {
        const std::size_t end = take(set, at);
        if (end == at) break;
        at = end;
        if (count < run.least) enough = at;
      }
      spend(count / 4);
      if (count < run.least) return false;
      if (lazy && count < run.most) {
        ways_.push_back({.step = step, .at = at, .count = count, .kind = Way::Kind::longer});
      } else if (run.greed == RegexNode::Greed::greedy && at > enough) {
        ways_.push_back({.step = step, .at = at, .least = enough, .kind = Way::Kind::shorter});
      }
      return true;
    }

    // Takes up the last way that is left; false if there is none.
    bool go_back(std::size_t base, std::size_t& step, std::size_t& at) {
      while (ways_.size() > base) {
        Way& way = ways_.back();
        step = way.step;
        at = way.at;
        if (way.kind == Way::Kind::plain) {
          ways_.pop_back();
          return true;
        }
        spend(1);
        const RegexStep& run = program_.steps[step];
        ++step;
        if (way.kind == Way::Kind::shorter) {
          at = way.at = before(at);
          if (at == way.least) ways_.pop_back();
          return true;
        }
        const std::size_t end = take(program_.sets[run.a], at);
        if (end == at) {
          ways_.pop_back();
          continue;
        }
        at = way.at = end;
        if (++way.count == run.most) ways_.pop_back();
        return true;
      }
      return false;
    }

    const RegexProgram& program_;
    std::string_view text_;
    std::size_t left_;
    std::size_t attempt_ = 0;
    std::vector<Way> ways_;
    std::unordered_set<std::size_t> seen_;
  };

 private:
  std::shared_ptr<const RegexProgram> program_;
};

}  // namespace lorapp::detail
