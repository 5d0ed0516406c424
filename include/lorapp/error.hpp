// Errors: one exception type, one check macro, and a collector for all problems of one file.
// Every message reads "[op] what; found …, expected …"; library code never prints, exits or aborts.
#pragma once

#include <lorapp/export.hpp>

#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace lorapp {

/// The exception that every function of lorapp throws: `what()` is "[op] message".
class LORAPP_API Error : public std::runtime_error {
 public:
  Error(std::string op, const std::string& message);
  ~Error() override;

  /// The operation or file kind that failed, e.g. "safetensors" or "lora_config".
  const std::string& op() const noexcept { return op_; }

 private:
  std::string op_;
};

namespace detail {

/// Throws Error(op, message). Out of line and cold, so that checks cost a compare and a call.
[[noreturn]] LORAPP_API void fail(std::string_view op, const std::string& message);

/// The stream output of all arguments, one after the other.
template <class... Pieces>
std::string concat(const Pieces&... pieces) {
  std::ostringstream out;
  (out << ... << pieces);
  return out.str();
}

}  // namespace detail

/// Collects every problem of one subject (a file, a folder, a configuration), then throws one Error
/// that lists them.
class LORAPP_API Problems {
 public:
  /// `op` as in Error; `subject` names what is examined, e.g. a path.
  Problems(std::string op, std::string subject);

  template <class... Pieces>
  void add(const Pieces&... pieces) {
    items_.push_back(detail::concat(pieces...));
  }

  bool empty() const noexcept { return items_.empty(); }
  std::size_t size() const noexcept { return items_.size(); }

  /// Throws Error if anything was added: "subject: problem", or a numbered list where there are
  /// several.
  void throw_if_any() const;

 private:
  std::string op_;
  std::string subject_;
  std::vector<std::string> items_;
};

}  // namespace lorapp

/// Throws lorapp::Error(op, the streamed rest) unless `condition` holds; the rest is evaluated only
/// then.
#define LORAPP_CHECK(condition, op, ...)                                   \
  do {                                                                     \
    if (!(condition)) [[unlikely]] {                                       \
      ::lorapp::detail::fail((op), ::lorapp::detail::concat(__VA_ARGS__)); \
    }                                                                      \
  } while (false)
