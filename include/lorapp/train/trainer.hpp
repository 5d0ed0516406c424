// Trainer: the loop over epochs, accumulation windows and micro-batches.
// A window is gradient_accumulation_steps micro-batches (the last of an epoch what is left) and one
// optimizer step; its loss is the sum of its token losses ÷ the number of its scored tokens.
#pragma once

#include <lorapp/data/batch.hpp>
#include <lorapp/data/example.hpp>
#include <lorapp/error.hpp>
#include <lorapp/nn/causal_lm.hpp>
#include <lorapp/random_bits.hpp>
#include <lorapp/train/adamw.hpp>
#include <lorapp/train/callbacks.hpp>
#include <lorapp/train/checkpoints.hpp>
#include <lorapp/train/data_plan.hpp>
#include <lorapp/train/evaluate.hpp>
#include <lorapp/train/loss.hpp>
#include <lorapp/train/schedule.hpp>
#include <lorapp/train/train_output.hpp>
#include <lorapp/train/training_arguments.hpp>

#include <torch/types.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace lorapp {

/// Trains the parameters of a model that require gradients: the adapters of a PeftModel, or all of
/// a plain model's. Half-precision parameters get float32 master copies.
class Trainer {
 public:
  /// The model must outlive the Trainer; the data set is moved in.
  template <ExampleSource D>
  Trainer(CausalLM& model, TrainingArguments args, D train_dataset)
      : model_(model), args_(std::move(args)), train_set_(std::move(train_dataset)) {
    plan();
  }

  template <ExampleSource D, ExampleSource E>
  Trainer(CausalLM& model, TrainingArguments args, D train_dataset, E eval_dataset)
      : Trainer(model, std::move(args), std::move(train_dataset)) {
    eval_set_.emplace(std::move(eval_dataset));
    LORAPP_CHECK(eval_set_->size() > 0, "trainer", "the evaluation data set is empty");
  }

  void add_callback(std::shared_ptr<TrainerCallback> callback) {
    LORAPP_CHECK(callback != nullptr, "trainer", "cannot add a callback that is null");
    callbacks_.push_back(std::move(callback));
  }

  /// Runs to the last step, or continues from a checkpoint folder ("last": the newest in
  /// output_dir) as if the run had never been interrupted, bit for bit. When `*stop` turns true (a
  /// signal handler may set it), the state of the last whole step is saved and train returns early.
  ///
  /// Writes checkpoints and, at the end, trainer_state.json and training_args.json to output_dir.
  /// With overwrite_output_dir a new run deletes the checkpoints of an old one first. A loss or
  /// gradient that is not finite is an Error naming step and examples; the state before that step
  /// is saved unless save_strategy is "no".
  TrainOutput train(const std::optional<std::filesystem::path>& resume_from_checkpoint = {},
                    const std::atomic<bool>* stop = nullptr) {
    using Clock = std::chrono::steady_clock;
    const auto seconds = [](Clock::duration time) {
      return std::chrono::duration<double>(time).count();
    };
    const Clock::time_point begin = Clock::now();
    LORAPP_CHECK(args_.eval_strategy == "no" || eval_set_, "trainer", "eval_strategy is \"",
                 args_.eval_strategy, "\" but there is no evaluation data set");
    AdamW optimizer(trained_parameters(model_),
                    {args_.adam_beta1, args_.adam_beta2, args_.adam_epsilon, args_.weight_decay,
                     args_.optim_state_bits()});
    start(resume_from_checkpoint, optimizer);
    const ModeGuard training(model_, true);
    model_.set_gradient_checkpointing(args_.checkpointing_mode());
    tell([&](TrainerCallback& callback) { callback.on_train_begin(args_, state_, control_); });

    const std::int64_t first_step = state_.global_step;
    const Clock::time_point first_forward = Clock::now();
    Step sum;  // loss, samples and tokens of this call
    bool interrupted = false;
    while (state_.global_step < schedule_.max_steps && !interrupted &&
           !control_.should_training_stop) {
      const std::int64_t epoch = state_.global_step / data_.windows();
      const std::vector<std::int64_t> order = data_.order(epoch);
      for (std::int64_t window = state_.global_step % data_.windows(); window < data_.windows();
           ++window) {
        const std::optional<Step> step = run_step(optimizer, order, epoch, window, stop);
        if (!step) {
          interrupted = true;
          break;
        }
        sum.loss += step->loss;
        sum.samples += step->samples;
        sum.tokens += step->tokens;
        finish_step(optimizer, *step);
        if (state_.global_step >= schedule_.max_steps || control_.should_training_stop) break;
      }
      if (!interrupted) finish_epoch(optimizer);
    }

    TrainOutput output;
    output.stopped = state_.global_step < schedule_.max_steps;
    if (output.stopped && state_.global_step > 0 && (interrupted || args_.save_strategy != "no")) {
      save(optimizer);
    }
    const auto steps = static_cast<double>(state_.global_step - first_step);
    const auto rate = [](auto count, double time) {
      return time > 0 ? static_cast<double>(count) / time : 0.0;
    };
    output.global_step = state_.global_step;
    output.num_input_tokens_seen = state_.num_input_tokens_seen;
    output.total_flos = state_.total_flos;
    output.train_loss = steps > 0 ? sum.loss / steps : 0;
    output.train_runtime = seconds(Clock::now() - begin);
    output.train_samples_per_second = rate(sum.samples, output.train_runtime);
    output.train_steps_per_second = rate(steps, output.train_runtime);
    if (steps > 0) {
      output.train_tokens_per_second = rate(sum.tokens, seconds(last_step_end_ - first_forward));
    }
    log({{"total_flos", output.total_flos},
         {"train_loss", output.train_loss},
         {"train_runtime", output.train_runtime},
         {"train_samples_per_second", output.train_samples_per_second},
         {"train_steps_per_second", output.train_steps_per_second},
         {"train_tokens_per_second", output.train_tokens_per_second}});
    // A run stopped before its first step leaves nothing that a second start would find in its way.
    if (state_.global_step > 0) {
      const std::filesystem::path dir = args_.output_dir;
      std::error_code error;
      std::filesystem::create_directories(dir, error);
      LORAPP_CHECK(!error, "trainer", "cannot create the folder ", dir.string(), ": ",
                   error.message());
      state_.save(dir / "trainer_state.json");
      args_.save(dir / "training_args.json");
    }
    tell([&](TrainerCallback& callback) { callback.on_train_end(args_, state_, control_); });
    return output;
  }

  /// The loss over the evaluation data set.
  LossResult evaluate() {
    LORAPP_CHECK(eval_set_, "trainer", "there is no evaluation data set");
    return evaluate_loss(model_, *eval_set_, args_.per_device_eval_batch_size);
  }

  const TrainingArguments& args() const noexcept { return args_; }
  const TrainerState& state() const noexcept { return state_; }
  /// Optimizer steps of a whole run.
  std::int64_t max_steps() const noexcept { return schedule_.max_steps; }

 private:
  /// What one optimizer step did.
  struct Step {
    double loss = 0;
    double grad_norm = 0;
    double learning_rate = 0;
    std::int64_t samples = 0;
    std::int64_t tokens = 0;
  };

  /// Everything that follows from the arguments and the number of examples.
  void plan() {
    args_.validate();
    LORAPP_CHECK(train_set_.size() > 0, "trainer", "the training data set is empty");
    data_ = detail::DataPlan::of(args_, train_set_.size());
    schedule_ = schedule_of(args_, max_steps_of(args_, data_.windows()));
  }

  /// A fresh state, or that of a checkpoint; and the output folder.
  void start(const std::optional<std::filesystem::path>& resume, AdamW& optimizer) {
    state_ = {};
    progress_ = {};
    control_ = {};
    last_saved_step_ = -1;
    if (resume) {
      const std::filesystem::path dir = find_checkpoint(*resume, args_.output_dir);
      LoadedCheckpoint loaded = load_checkpoint(dir, model_, optimizer, args_, data_.num_examples);
      state_ = std::move(loaded.state);
      progress_ = loaded.progress;
      check_same_data(dir);
      last_saved_step_ = state_.global_step;
    } else {
      args_.check_output_dir();
      for (const auto& old : list_checkpoints(args_.output_dir)) remove_checkpoint(old);
    }
    progress_.num_examples = data_.num_examples;
    state_.max_steps = schedule_.max_steps;
    state_.logging_steps = resolve_steps(args_.logging_steps, schedule_.max_steps);
    state_.eval_steps = resolve_steps(args_.eval_steps, schedule_.max_steps);
    state_.save_steps = resolve_steps(args_.save_steps, schedule_.max_steps);
    state_.train_batch_size = args_.per_device_train_batch_size;
    state_.num_train_epochs = (schedule_.max_steps + data_.windows() - 1) / data_.windows();

    flos_per_token_ = detail::flos_per_token(model_);
  }

  /// One accumulation window and its optimizer step; nothing if the stop flag came up before its
  /// end (then no parameter has changed).
  std::optional<Step> run_step(AdamW& optimizer,
                               const std::vector<std::int64_t>& order,
                               std::int64_t epoch,
                               std::int64_t window,
                               const std::atomic<bool>* stop) {
    const std::vector<Batch> batches = data_.read_window(train_set_, order, window);
    const std::int64_t first = data_.first_micro_batch(window);
    const std::int64_t end = data_.end_micro_batch(window);
    const auto in_examples = [&](std::int64_t from, std::int64_t to) {
      return " in examples " + data_.example_list(order, from, to);
    };
    std::int64_t scored = 0;
    for (const Batch& batch : batches) scored += batch.num_labels;
    if (scored == 0) fail_step(optimizer, "no token is scored" + in_examples(first, end));

    Step step;
    const double token_weight = 1.0 / static_cast<double>(scored);
    const torch::Device device = detail::device_of(model_);
    optimizer.zero_grad();
    for (std::int64_t micro = first; micro < end; ++micro) {
      if (stop != nullptr && stop->load()) return std::nullopt;
      const Batch& batch = batches[static_cast<std::size_t>(micro - first)];
      model_.seed_dropout(derive_seed(
          args_.seed, static_cast<std::uint64_t>(epoch * data_.micro_batches() + micro)));
      const torch::Tensor hidden = model_.hidden_states(packed_input(batch));
      const double loss =
          token_loss_backward(model_, hidden, batch.labels.to(device), token_weight);
      if (!std::isfinite(loss)) {
        fail_step(optimizer, "the loss is " + std::to_string(loss) + in_examples(micro, micro + 1));
      }
      optimizer.accumulate();
      step.loss += loss * token_weight;
      step.samples += batch.num_examples();
      step.tokens += batch.num_tokens();
    }

    step.grad_norm = optimizer.grad_norm();
    if (!std::isfinite(step.grad_norm)) {
      fail_step(optimizer, "the norm of the gradient is " + std::to_string(step.grad_norm) +
                               in_examples(first, end));
    }
    step.learning_rate = schedule_.at(state_.global_step);
    optimizer.step(step.learning_rate, clip_factor(step.grad_norm, args_.max_grad_norm));
    last_step_end_ = std::chrono::steady_clock::now();
    ++state_.global_step;
    state_.epoch = data_.epoch_after(epoch, window);
    state_.num_input_tokens_seen += step.tokens;
    state_.total_flos += flos_per_token_ * static_cast<double>(step.tokens);
    progress_.loss_since_log += step.loss;
    progress_.last_window_hash = detail::hash_batches(batches);
    return step;
  }

  /// Callbacks, then the log, evaluation and checkpoint that are due after a step.
  void finish_step(AdamW& optimizer, const Step& step) {
    const std::int64_t now = state_.global_step;
    const bool at_end = now >= schedule_.max_steps;
    last_step_ = step;
    control_.should_log = (args_.logging_strategy == "steps" && now % state_.logging_steps == 0) ||
                          (now == 1 && args_.logging_first_step);
    control_.should_evaluate =
        args_.eval_strategy == "steps" && (now % state_.eval_steps == 0 || at_end);
    control_.should_save =
        args_.save_strategy == "steps" && (now % state_.save_steps == 0 || at_end);
    tell([&](TrainerCallback& callback) { callback.on_step_end(args_, state_, control_); });
    do_what_is_due(optimizer);
  }

  void finish_epoch(AdamW& optimizer) {
    control_.should_log = args_.logging_strategy == "epoch";
    control_.should_evaluate = args_.eval_strategy == "epoch";
    control_.should_save = args_.save_strategy == "epoch";
    tell([&](TrainerCallback& callback) { callback.on_epoch_end(args_, state_, control_); });
    do_what_is_due(optimizer);
  }

  void do_what_is_due(AdamW& optimizer) {
    const std::int64_t unlogged = state_.global_step - progress_.last_logged_step;
    if (std::exchange(control_.should_log, false) && unlogged > 0) {
      LogEntry entry = {{"loss", progress_.loss_since_log / static_cast<double>(unlogged)},
                        {"grad_norm", last_step_.grad_norm},
                        {"learning_rate", last_step_.learning_rate}};
      progress_.loss_since_log = 0;
      progress_.last_logged_step = state_.global_step;
      log(std::move(entry));
    }
    if (std::exchange(control_.should_evaluate, false)) {
      const auto begin = std::chrono::steady_clock::now();
      const LossResult result = evaluate();
      const double runtime =
          std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
      const double batches = std::ceil(static_cast<double>(result.examples) /
                                       static_cast<double>(args_.per_device_eval_batch_size));
      LogEntry entry = {{"eval_loss", result.loss}, {"eval_runtime", runtime}};
      if (runtime > 0) {
        entry["eval_samples_per_second"] = static_cast<double>(result.examples) / runtime;
        entry["eval_steps_per_second"] = batches / runtime;
      }
      log(std::move(entry));
      tell([&](TrainerCallback& callback) {
        callback.on_evaluate(args_, state_, control_, state_.log_history.back());
      });
    }
    if (std::exchange(control_.should_save, false)) save(optimizer);
  }

  void log(LogEntry entry) {
    entry["epoch"] = state_.epoch;
    entry["step"] = static_cast<double>(state_.global_step);
    state_.log_history.push_back(std::move(entry));
    tell([&](TrainerCallback& callback) {
      callback.on_log(args_, state_, control_, state_.log_history.back());
    });
  }

  /// Saves the current step, once.
  void save(AdamW& optimizer) {
    if (last_saved_step_ == state_.global_step) return;
    const std::filesystem::path dir = save_checkpoint(model_, optimizer, args_, state_, progress_);
    last_saved_step_ = state_.global_step;
    tell([&](TrainerCallback& callback) { callback.on_save(args_, state_, control_, dir); });
  }

  /// Throws for the step after state_.global_step. The parameters are still those before it.
  [[noreturn]] void fail_step(AdamW& optimizer, const std::string& what) {
    std::string message = "step " + std::to_string(state_.global_step + 1) + ": " + what;
    if (state_.global_step > 0 && args_.save_strategy != "no") {
      try {
        save(optimizer);
        message += "; the state before it is in checkpoint-" + std::to_string(state_.global_step);
      } catch (const Error& error) {
        message += std::string("; the state before it could not be saved: ") + error.what();
      }
    }
    detail::fail("trainer", message);
  }

  /// Error unless the step before the checkpoint read what the same step reads now.
  void check_same_data(const std::filesystem::path& checkpoint) const {
    // A checkpoint of transformers' Trainer has no hash.
    if (state_.global_step == 0 || !progress_.last_window_hash) return;
    const std::int64_t last = state_.global_step - 1;
    const std::vector<Batch> batches =
        data_.read_window(train_set_, data_.order(last / data_.windows()), last % data_.windows());
    LORAPP_CHECK(detail::hash_batches(batches) == progress_.last_window_hash, "trainer",
                 checkpoint.string(), " was trained on other data: the examples of its last step, ",
                 state_.global_step, ", are not those of this data set");
  }

  template <class F>
  void tell(F&& f) {
    for (const auto& callback : callbacks_) f(*callback);
  }

  CausalLM& model_;
  TrainingArguments args_;
  detail::AnyExamples train_set_;
  std::optional<detail::AnyExamples> eval_set_;
  std::vector<std::shared_ptr<TrainerCallback>> callbacks_;
  detail::DataPlan data_;
  Schedule schedule_;
  TrainerState state_;
  TrainingProgress progress_;
  TrainerControl control_;
  std::int64_t last_saved_step_ = -1;
  Step last_step_;
  double flos_per_token_ = 0;
  std::chrono::steady_clock::time_point last_step_end_;
};

}  // namespace lorapp
