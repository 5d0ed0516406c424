// The progress of a run: a bar on a terminal, lines elsewhere.
#include <lorapp/train/callbacks.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <ostream>

namespace lorapp {

namespace {

constexpr int kBarWidth = 24;
constexpr const char* kClearLine = "\r\x1b[K";

std::string duration_text(double seconds) {
  const auto total = static_cast<std::int64_t>(std::max(0.0, seconds) + 0.5);
  const std::int64_t hours = total / 3600;
  const std::int64_t minutes = total / 60 % 60;
  if (hours > 0) return fmt::format("{}:{:02}:{:02}", hours, minutes, total % 60);
  return fmt::format("{}:{:02}", minutes, total % 60);
}

}  // namespace

ProgressCallback::ProgressCallback(std::ostream& out, bool is_terminal)
    : out_(out), is_terminal_(is_terminal) {}

// A run that ends in an error never gets to on_train_end: what is printed next begins a line.
ProgressCallback::~ProgressCallback() {
  if (bar_is_open_) out_ << '\n' << std::flush;
}

double ProgressCallback::tokens_per_second(const TrainerState& state) const {
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  return seconds > 0 ? static_cast<double>(state.num_input_tokens_seen - first_tokens_) / seconds
                     : 0;
}

double ProgressCallback::seconds_left(const TrainerState& state) const {
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  const auto done = static_cast<double>(state.global_step - first_step_);
  return done > 0 ? seconds / done * static_cast<double>(state.max_steps - state.global_step) : 0;
}

void ProgressCallback::draw_bar(const TrainerState& state) {
  const double share = state.max_steps > 0 ? static_cast<double>(state.global_step) /
                                                 static_cast<double>(state.max_steps)
                                           : 0;
  const int filled = std::clamp(static_cast<int>(share * kBarWidth), 0, kBarWidth);
  std::string bar;
  for (int i = 0; i < kBarWidth; ++i) bar += i < filled ? "█" : "░";
  std::string line = fmt::format("{}{} step {}/{}  epoch {:.2f}", kClearLine, bar,
                                 state.global_step, state.max_steps, state.epoch);
  if (has_loss_) line += fmt::format("  loss {:.4f}  lr {:.2e}", loss_, learning_rate_);
  if (state.global_step > first_step_) {
    line += fmt::format("  {:.0f} tokens/s  {} left", tokens_per_second(state),
                        duration_text(seconds_left(state)));
  }
  out_ << line << std::flush;
  bar_is_open_ = true;
}

void ProgressCallback::print_line(const std::string& line, const TrainerState& state) {
  if (!is_terminal_) {
    out_ << line + "\n" << std::flush;
    return;
  }
  out_ << kClearLine + line + "\n";
  draw_bar(state);
}

void ProgressCallback::on_train_begin(const TrainingArguments&,
                                      const TrainerState& state,
                                      TrainerControl&) {
  begin_ = std::chrono::steady_clock::now();
  first_step_ = state.global_step;
  first_tokens_ = state.num_input_tokens_seen;
  has_loss_ = false;
  if (is_terminal_) draw_bar(state);
}

void ProgressCallback::on_step_end(const TrainingArguments&,
                                   const TrainerState& state,
                                   TrainerControl&) {
  if (is_terminal_) draw_bar(state);
}

void ProgressCallback::on_log(const TrainingArguments&,
                              const TrainerState& state,
                              TrainerControl&,
                              const LogEntry& entry) {
  if (const auto loss = entry.find("loss"); loss != entry.end()) {
    loss_ = loss->second;
    learning_rate_ = entry.at("learning_rate");
    has_loss_ = true;
    if (is_terminal_) {
      draw_bar(state);
    } else {
      print_line(
          fmt::format("step {}/{}  epoch {:.2f}  loss {:.4f}  grad norm {:.4f}  lr {:.3e}  "
                      "{:.0f} tokens/s  {} left",
                      state.global_step, state.max_steps, state.epoch, loss_, entry.at("grad_norm"),
                      learning_rate_, tokens_per_second(state), duration_text(seconds_left(state))),
          state);
    }
  } else if (const auto eval = entry.find("eval_loss"); eval != entry.end()) {
    print_line(fmt::format("step {}  evaluation loss {:.4f}", state.global_step, eval->second),
               state);
  }
}

void ProgressCallback::on_save(const TrainingArguments&,
                               const TrainerState& state,
                               TrainerControl&,
                               const std::filesystem::path& checkpoint) {
  print_line(fmt::format("step {}  saved {}", state.global_step, checkpoint.string()), state);
}

void ProgressCallback::on_train_end(const TrainingArguments&,
                                    const TrainerState& state,
                                    TrainerControl&) {
  if (is_terminal_) {
    draw_bar(state);
    out_ << '\n' << std::flush;
    bar_is_open_ = false;
  }
}

}  // namespace lorapp
