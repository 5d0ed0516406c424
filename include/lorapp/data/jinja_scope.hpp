// The variables of a running chat template.
#pragma once

#include <lorapp/data/jinja_value.hpp>

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lorapp::detail::jinja {

/// Frames of variables. Loops, scopes, captures and macros open one; a macro sees its own frames
/// and the outermost.
class Scope {
 public:
  using Variables = std::vector<std::pair<std::string, Value>>;

  explicit Scope(Variables globals) { frames_.push_back(std::move(globals)); }

  /// Null where there is no such variable.
  const Value* find(std::string_view name, Budget& budget) const {
    for (std::size_t i = frames_.size(); i-- > base_;)
      if (const Value* found = find_in(frames_[i], name, budget)) return found;
    return base_ > 0 ? find_in(frames_[0], name, budget) : nullptr;
  }

  void set(const std::string& name, Value value, Budget& budget) {
    Variables& frame = frames_.back();
    budget.spend(frame.size() / 4 + 1);
    for (auto& [known, old] : frame) {
      if (known != name) continue;
      old = std::move(value);
      return;
    }
    frame.emplace_back(name, std::move(value));
  }

  /// A frame, for as long as this lives.
  class Frame {
   public:
    explicit Frame(Scope& scope, bool macro = false) : scope_(scope), base_(scope.base_) {
      if (macro) scope.base_ = scope.frames_.size();
      scope.frames_.emplace_back();
    }
    ~Frame() {
      scope_.frames_.pop_back();
      scope_.base_ = base_;
    }
    Frame(const Frame&) = delete;
    Frame& operator=(const Frame&) = delete;

   private:
    Scope& scope_;
    std::size_t base_;
  };

 private:
  static const Value* find_in(const Variables& frame, std::string_view name, Budget& budget) {
    budget.spend(frame.size() / 4 + 1);
    for (const auto& [known, value] : frame)
      if (known == name) return &value;
    return nullptr;
  }

  std::vector<Variables> frames_;
  std::size_t base_ = 0;
};

}  // namespace lorapp::detail::jinja
