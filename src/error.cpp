// The throwing bodies of error.hpp, kept out of line.
#include <lorapp/error.hpp>

#include <utility>

namespace lorapp {

namespace {
// A broken file can have a problem per tensor; past this many a message helps nobody.
constexpr std::size_t kMaxListedProblems = 20;
}  // namespace

Error::Error(std::string op, const std::string& message)
    : std::runtime_error("[" + op + "] " + message), op_(std::move(op)) {}

Error::~Error() = default;

void detail::fail(std::string_view op, const std::string& message) {
  throw Error(std::string(op), message);
}

Problems::Problems(std::string op, std::string subject)
    : op_(std::move(op)), subject_(std::move(subject)) {}

void Problems::throw_if_any() const {
  if (items_.empty()) return;
  if (items_.size() == 1) detail::fail(op_, subject_ + ": " + items_.front());
  std::string message = subject_ + ": " + std::to_string(items_.size()) + " problems";
  for (std::size_t i = 0; i < items_.size() && i < kMaxListedProblems; ++i) {
    message += "\n  " + std::to_string(i + 1) + ". " + items_[i];
  }
  if (items_.size() > kMaxListedProblems) {
    message += "\n  … and " + std::to_string(items_.size() - kMaxListedProblems) + " more";
  }
  detail::fail(op_, message);
}

}  // namespace lorapp
