// TrainerState and TrainerCallback: what a run knows about itself, and who is told.
// A callback asks for something by setting a flag of TrainerControl; the Trainer clears it when
// done.
#pragma once

#include <lorapp/export.hpp>
#include <lorapp/train/training_arguments.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <iosfwd>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace lorapp {

/// One entry of log_history: "step", "epoch" and either "loss", "learning_rate" and "grad_norm", or
/// the "eval_…" or "train_…" values.
using LogEntry = std::map<std::string, double>;

/// trainer_state.json, in transformers' schema.
struct LORAPP_API TrainerState {
  double epoch = 0;  ///< epochs done, with the part of the current one
  std::int64_t global_step = 0;
  std::int64_t max_steps = 0;
  std::int64_t logging_steps = 0;  // resolved from fractions
  std::int64_t eval_steps = 0;
  std::int64_t save_steps = 0;
  std::int64_t train_batch_size = 0;
  std::int64_t num_train_epochs = 0;       ///< epochs begun when all is done
  std::int64_t num_input_tokens_seen = 0;  ///< ids of all examples trained on
  double total_flos = 0;                   ///< 6 · tokens · parameters without the embedding
  std::vector<LogEntry> log_history;
  // Of a run in Python that looked for its best checkpoint; kept as they were.
  std::optional<double> best_metric = {};
  std::optional<std::int64_t> best_global_step = {};
  std::optional<std::string> best_model_checkpoint = {};

  /// Reads the file of lorapp or of transformers, where a value may be NaN or Infinity; such a log
  /// value, and a null, becomes NaN.
  static TrainerState from_file(const std::filesystem::path& path);
  void save(const std::filesystem::path& path) const;
};

/// What happens after the current step.
struct TrainerControl {
  bool should_training_stop = false;
  bool should_log = false;
  bool should_evaluate = false;
  bool should_save = false;
};

/// Told about the course of a run; every member does nothing by default.
class LORAPP_API TrainerCallback {
 public:
  virtual ~TrainerCallback();

  virtual void on_train_begin(const TrainingArguments&, const TrainerState&, TrainerControl&) {}
  virtual void on_step_end(const TrainingArguments&, const TrainerState&, TrainerControl&) {}
  virtual void on_epoch_end(const TrainingArguments&, const TrainerState&, TrainerControl&) {}
  /// `entry` is the newest of state.log_history.
  virtual void on_log(const TrainingArguments&,
                      const TrainerState&,
                      TrainerControl&,
                      const LogEntry& /*entry*/) {}
  virtual void on_evaluate(const TrainingArguments&,
                           const TrainerState&,
                           TrainerControl&,
                           const LogEntry& /*metrics*/) {}
  virtual void on_save(const TrainingArguments&,
                       const TrainerState&,
                       TrainerControl&,
                       const std::filesystem::path& /*checkpoint*/) {}
  virtual void on_train_end(const TrainingArguments&, const TrainerState&, TrainerControl&) {}
};

/// Shows a run on a stream: on a terminal a bar with step, epoch, loss, learning rate, tokens/s and
/// the remaining time, elsewhere a line for each log entry.
class LORAPP_API ProgressCallback : public TrainerCallback {
 public:
  ProgressCallback(std::ostream& out, bool is_terminal);
  ~ProgressCallback() override;

  void on_train_begin(const TrainingArguments&, const TrainerState&, TrainerControl&) override;
  void on_step_end(const TrainingArguments&, const TrainerState&, TrainerControl&) override;
  void on_log(const TrainingArguments&,
              const TrainerState&,
              TrainerControl&,
              const LogEntry& entry) override;
  void on_save(const TrainingArguments&,
               const TrainerState&,
               TrainerControl&,
               const std::filesystem::path& checkpoint) override;
  void on_train_end(const TrainingArguments&, const TrainerState&, TrainerControl&) override;

 private:
  void draw_bar(const TrainerState& state);
  void print_line(const std::string& line, const TrainerState& state);
  double tokens_per_second(const TrainerState& state) const;
  double seconds_left(const TrainerState& state) const;

  std::ostream& out_;
  bool is_terminal_;
  std::chrono::steady_clock::time_point begin_;
  std::int64_t first_step_ = 0;
  std::int64_t first_tokens_ = 0;
  double loss_ = 0;
  double learning_rate_ = 0;
  bool has_loss_ = false;
  bool bar_is_open_ = false;  // drawn, and no line feed behind it yet
};

}  // namespace lorapp
