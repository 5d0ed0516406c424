// lorapp finetune: load, quantize, attach LoRA, tokenize through the template, train, save.
#include "adapter.hpp"
#include "command.hpp"
#include "console.hpp"
#include "interrupt.hpp"
#include "options.hpp"

#include <lorapp/data/tokenizer.hpp>
#include <lorapp/error.hpp>
#include <lorapp/io/dtype.hpp>
#include <lorapp/io/memory.hpp>
#include <lorapp/train/callbacks.hpp>
#include <lorapp/train/checkpoints.hpp>
#include <lorapp/train/schedule.hpp>
#include <lorapp/train/trainer.hpp>
#include <lorapp/train/training_arguments.hpp>

#include <CLI/CLI.hpp>

#include <charconv>
#include <cmath>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <unistd.h>

namespace lorapp::program {

namespace {

struct Options {
  CommonOptions common{};
  ModelOptions model{};
  DataOptions data{};
  LoraOptions lora{};
  TrainingArguments training{};
  std::string lr_scheduler_type{scheduler_name(SchedulerType::linear)};
  std::string lr_scheduler_kwargs{};
  std::optional<double> warmup_ratio{};
  std::string gradient_checkpointing_mode{};
  const CLI::Option* checkpointing_switch = nullptr;
  std::string init_adapter{};
  std::string resume_from_checkpoint{};
  std::string eval_data{};
  double eval_split = 0;
  std::optional<double> eval_steps{};
  bool fp16 = false;
  bool bf16 = false;

  void add_to(CLI::App& app);
  void add_training_to(CLI::App& app);
  /// What the library's Trainer is given.
  TrainingArguments arguments() const;
  /// Whether the checkpoint to resume from lies in the output folder, which then is not empty.
  bool continues_in_place() const;
  bool evaluates() const { return !eval_data.empty() || eval_split > 0; }
};

std::string check_split(const std::string& text) {
  double value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  const bool number = error == std::errc{} && stop == end && std::isfinite(value);
  constexpr double kMostRows = 1e15;  // every whole number up to here is a double of its own
  if (number && value > 0 && (value < 1 || (value == std::floor(value) && value <= kMostRows))) {
    return {};
  }
  return "expected a share below 1 or a whole number of rows, found \"" + text + "\"";
}

std::string check_ratio(const std::string& text) {
  double value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error == std::errc{} && stop == end && value >= 0 && value < 1) return {};
  return "expected a share of all steps, 0 or more and below 1, found \"" + text + "\"";
}

void Options::add_to(CLI::App& app) {
  model.add_to(app);
  model.add_cache_to(app);
  model.add_head_to(app);
  data.add_to(app);
  auto* eval_file =
      app.add_option("--eval-data", eval_data, "Data file to evaluate on, in the same format");
  app.add_option("--eval-split", eval_split,
                 "Rows to evaluate on instead of training: a share below 1, or a number")
      ->check(CLI::Validator(check_split, ">0"))
      ->excludes(eval_file);
  lora.add_to(app);
  auto* init = app.add_option("--init-adapter", init_adapter,
                              "Start from this adapter folder, whose configuration rules");
  add_training_to(app);
  app.add_option("--resume-from-checkpoint", resume_from_checkpoint,
                 "Continue from a checkpoint folder, also one of transformers' Trainer; last: the "
                 "newest in the output folder")
      ->excludes(init);
  auto* half = app.add_flag("--fp16", fp16,
                            "Accepted for the tutorial's sake; a CPU computes in another type");
  app.add_flag("--bf16", bf16, "Quantized products in bfloat16: --compute-dtype bfloat16")
      ->excludes(half);
  common.add_to(app);
}

void Options::add_training_to(CLI::App& app) {
  TrainingArguments& t = training;
  const auto add = [&](const char* name, auto& value, const char* help) {
    return app.add_option(name, value, help)->capture_default_str();
  };
  app.add_option("--output-dir", t.output_dir, "Folder for the adapter and the checkpoints")
      ->required();
  app.add_flag("--overwrite-output-dir", t.overwrite_output_dir,
               "Use an output folder that is not empty; its checkpoints are deleted");
  add("--per-device-train-batch-size", t.per_device_train_batch_size, "Examples of a forward pass");
  add("--gradient-accumulation-steps", t.gradient_accumulation_steps,
      "Forward passes of an optimizer step");
  add("--learning-rate", t.learning_rate, "The highest learning rate");
  add("--num-train-epochs", t.num_train_epochs, "Passes over the data");
  add("--max-steps", t.max_steps, "Optimizer steps; above 0 it rules over the epochs");
  app.add_option("--lr-scheduler-type", lr_scheduler_type, "How the learning rate moves")
      ->capture_default_str()
      ->check(CLI::IsMember({"linear", "cosine", "cosine_with_restarts", "polynomial", "constant",
                             "constant_with_warmup", "inverse_sqrt"}));
  app.add_option("--lr-scheduler-kwargs", lr_scheduler_kwargs,
                 "Its own options as JSON, e.g. {\"num_cycles\": 2}");
  auto* warmup =
      add("--warmup-steps", t.warmup_steps, "Steps of linear rise; below 1: a share of all");
  app.add_option("--warmup-ratio", warmup_ratio, "The same as a share, as transformers 4 names it")
      ->check(CLI::Validator(check_ratio, "[0,1)"))
      ->excludes(warmup);
  add("--optim", t.optim,
      "The optimizer: adamw_torch, or adamw_8bit, whose state takes a quarter of the memory")
      ->check(CLI::IsMember({"adamw_torch", "adamw_torch_fused", "adamw_8bit", "adamw_bnb_8bit"}));
  add("--weight-decay", t.weight_decay, "AdamW's");
  add("--adam-beta1", t.adam_beta1, "AdamW's");
  add("--adam-beta2", t.adam_beta2, "AdamW's");
  add("--adam-epsilon", t.adam_epsilon, "AdamW's");
  add("--max-grad-norm", t.max_grad_norm, "Longer gradients are scaled down to it; 0: never");
  add("--logging-steps", t.logging_steps, "Steps between log entries; below 1: a share of all");
  add("--logging-strategy", t.logging_strategy, "When log entries are made")
      ->check(CLI::IsMember({"steps", "epoch", "no"}));
  app.add_flag("--logging-first-step", t.logging_first_step, "Log the first step as well");
  add("--save-steps", t.save_steps, "Steps between checkpoints; below 1: a share of all");
  add("--save-strategy", t.save_strategy, "When checkpoints are written")
      ->check(CLI::IsMember({"steps", "epoch", "no"}));
  add("--save-total-limit", t.save_total_limit, "Checkpoints kept, the newest; 0: all");
  app.add_flag(
      "--torch-checkpoints", t.torch_checkpoints,
      "Checkpoints that transformers' Trainer resumes from: also optimizer.pt, scheduler.pt");
  app.add_option("--eval-steps", eval_steps, "Steps between evaluations; below 1: a share of all")
      ->default_str("each epoch");
  add("--per-device-eval-batch-size", t.per_device_eval_batch_size,
      "Examples of an evaluation pass");
  add_switch(app, "shuffle", t.shuffle, "Each epoch in the order of torch.randperm(seed + epoch)");
  app.add_option("--data-seed", t.data_seed, "Seed of the data order; by default --seed");
  checkpointing_switch = add_switch(app, "gradient-checkpointing", t.gradient_checkpointing,
                                    "Recompute activations in the backward pass, for less memory");
  app.add_option(
         "--gradient-checkpointing-mode", gradient_checkpointing_mode,
         "Turns it on; full: whole layers are computed again; selective: norms and activation "
         "functions alone, at next to no cost")
      ->default_str("full")
      ->check(CLI::IsMember({"selective", "full"}));
}

TrainingArguments Options::arguments() const {
  TrainingArguments arguments = training;
  arguments.seed = model.seed;
  arguments.lr_scheduler_type = parse_scheduler_type(lr_scheduler_type);
  if (!lr_scheduler_kwargs.empty()) {
    try {
      arguments.lr_scheduler_kwargs = parse_scheduler_options(lr_scheduler_kwargs);
    } catch (const Error& error) {
      throw CLI::ValidationError("--lr-scheduler-kwargs", error.what());
    }
  }
  if (warmup_ratio) arguments.warmup_steps = *warmup_ratio;
  if (!gradient_checkpointing_mode.empty()) {
    if (checkpointing_switch->count() > 0 && !training.gradient_checkpointing) {
      throw CLI::ValidationError("--gradient-checkpointing-mode",
                                 "contradicts --no-gradient-checkpointing");
    }
    arguments.gradient_checkpointing = true;
    arguments.gradient_checkpointing_mode = parse_checkpointing_mode(gradient_checkpointing_mode);
  }
  if (eval_steps && !evaluates()) {
    throw CLI::ValidationError("--eval-steps", "needs --eval-data or --eval-split");
  }
  if (evaluates()) arguments.eval_strategy = eval_steps ? "steps" : "epoch";
  if (eval_steps) arguments.eval_steps = *eval_steps;
  arguments.validate();
  return arguments;
}

bool Options::continues_in_place() const {
  if (resume_from_checkpoint.empty()) return false;
  if (resume_from_checkpoint == "last") return true;
  std::error_code error;
  const std::filesystem::path checkpoint =
      std::filesystem::weakly_canonical(resume_from_checkpoint, error);
  return std::filesystem::equivalent(checkpoint.parent_path(), training.output_dir, error);
}

/// The rows to train on, and those to evaluate on.
DollyDataset::Split read_rows(const Options& options) {
  const DollyDataset rows = options.data.read();
  if (!options.eval_data.empty()) {
    return {.train = rows, .test = options.data.read_file(options.eval_data)};
  }
  const double share = options.eval_split;
  if (share <= 0) return {.train = rows, .test = {}};
  if (share < 1) return rows.train_test_split(share, options.model.seed);
  return rows.train_test_split(static_cast<std::int64_t>(share), options.model.seed);
}

/// The model options with what --fp16 and --bf16 mean on this machine.
ModelOptions with_half_precision(const Options& options, const Console& console) {
  ModelOptions model = options.model;
  if (options.fp16) {
    const LoadOptions load = model.load_options();
    console.note(std::string("--fp16: half precision ") +
                 (load.device.is_cpu() ? "is a GPU format; on this CPU"
                                       : "needs scaled losses, which lorapp has not; on this GPU") +
                 " products are computed in " +
                 (load.quant_config ? hf_dtype_name(resolve_compute_dtype(
                                          load.quant_config->compute_dtype, load.device)) +
                                          " (--compute-dtype)"
                                    : "the type of the weights (--dtype)"));
  }
  if (options.bf16) {
    if (model.quant_type == "none") {
      console.note(
          "--bf16 chooses the type of quantized products, and with --quant-type none there are "
          "none; use --dtype bfloat16");
    } else if (model.compute_dtype == "auto") {
      model.compute_dtype = "bfloat16";
    } else if (model.compute_dtype != "bfloat16") {
      throw CLI::ValidationError("--bf16", "contradicts --compute-dtype " + model.compute_dtype);
    }
  }
  return model;
}

/// The configuration of a new adapter, or that of the one to go on from.
LoraConfig lora_config(const Options& options, const Console& console) {
  std::filesystem::path adapter = options.init_adapter;
  if (!options.resume_from_checkpoint.empty()) {
    adapter = find_checkpoint(options.resume_from_checkpoint, options.training.output_dir);
  }
  const std::string name = options.model.base_name();
  LoraConfig config =
      adapter.empty() ? options.lora.new_adapter() : options.lora.from_adapter(adapter);
  note_other_base(config, adapter, name, console);
  config.base_model_name_or_path = name;
  if (const std::string revision = options.model.revision(); !revision.empty()) {
    config.unknown_keys["revision"] = Json(revision).dump();
  }
  return config;
}

/// The base with its adapter.
std::unique_ptr<PeftModel> make_model(const Options& options,
                                      const ModelOptions& model_options,
                                      LoraConfig config,
                                      const Tokenizer& tokenizer,
                                      const Console& console) {
  auto model = std::make_unique<PeftModel>(model_options.load(tokenizer, console),
                                           std::move(config), model_options.seed);
  if (!options.init_adapter.empty()) model->load_adapter_weights(options.init_adapter);
  const std::string& from =
      options.init_adapter.empty() ? options.resume_from_checkpoint : options.init_adapter;
  if (!from.empty()) options.lora.check_targets(*model, from);
  model->print_trainable_parameters(console.progress());
  return model;
}

void save(const PeftModel& model, const Tokenizer& tokenizer, const std::filesystem::path& dir) {
  model.save_pretrained(dir);
  tokenizer.save_pretrained(dir);
}

int run(const Options& options) {
  options.common.apply();
  const Console console(options.common.json, options.common.quiet);
  // Everything that can be wrong is checked before the model is read, which may take minutes.
  const TrainingArguments arguments = options.arguments();
  const bool resumes = !options.resume_from_checkpoint.empty();
  if (!options.continues_in_place()) arguments.check_output_dir();
  const ModelOptions model_options = with_half_precision(options, console);
  LoraConfig config = lora_config(options, console);
  const Tokenizer tokenizer = Tokenizer::from_pretrained(options.model.folder());
  const DollyDataset::Split rows = read_rows(options);
  TokenizedDataset examples =
      options.data.tokenize(rows.train, tokenizer, options.model.folder(), console);
  std::optional<TokenizedDataset> held_out;
  if (options.evaluates()) {
    console.say("To evaluate on:");
    held_out = options.data.tokenize(rows.test, tokenizer, options.model.folder(), console);
  }

  const auto model = make_model(options, model_options, std::move(config), tokenizer, console);
  const std::int64_t context = model->config().max_position_embeddings;
  if (examples.statistics().longest > context) {
    console.note("the longest example has " + std::to_string(examples.statistics().longest) +
                 " tokens, more than the " + std::to_string(context) +
                 " positions the model was made for (max_position_embeddings)");
  }

  std::optional<Trainer> trainer;
  if (held_out) {
    trainer.emplace(*model, arguments, std::move(examples), *std::move(held_out));
  } else {
    trainer.emplace(*model, arguments, std::move(examples));
  }
  if (!console.quiet()) {
    trainer->add_callback(
        std::make_shared<ProgressCallback>(console.progress(), isatty(STDERR_FILENO) == 1));
  }

  stop_on_signals();
  const std::optional<std::filesystem::path> resume =
      resumes ? std::optional<std::filesystem::path>(options.resume_from_checkpoint) : std::nullopt;
  const TrainOutput output = trainer->train(resume, &stop_flag());
  if (output.stopped && signal_exit_status() != 0) {
    console.say(output.global_step > 0
                    ? "Stopped; the state after step " + std::to_string(output.global_step) +
                          " is in " + arguments.output_dir +
                          "; continue with --resume-from-checkpoint last"
                    : "Stopped before the first step was done; there is no state to save");
    return signal_exit_status();
  }
  save(*model, tokenizer, arguments.output_dir);
  console.say("The adapter is in " + arguments.output_dir);

  const ParameterCounts parameters = model->trainable_parameters();
  console.result({{"output_dir", arguments.output_dir},
                  {"global_step", output.global_step},
                  {"train_loss", output.train_loss},
                  {"train_runtime", output.train_runtime},
                  {"train_samples_per_second", output.train_samples_per_second},
                  {"train_tokens_per_second", output.train_tokens_per_second},
                  {"trainable_params", parameters.trainable},
                  {"all_params", parameters.all},
                  {"peak_memory_bytes", peak_memory_bytes()}});
  return kDone;
}

}  // namespace

Command finetune_command() {
  return {"finetune", "Tune a LoRA adapter on instruction data, on a base in 4 bits",
          [](CLI::App& app) {
            const auto options = std::make_shared<Options>();
            options->add_to(app);
            return [options] { return run(*options); };
          }};
}

}  // namespace lorapp::program
