// training_args.json: the fields of TrainingArguments by their names, checked.
#include "json_file.hpp"

#include <lorapp/error.hpp>
#include <lorapp/train/training_arguments.hpp>

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <optional>
#include <set>
#include <string_view>
#include <system_error>
#include <utility>

namespace lorapp {

namespace {

using nlohmann::json;

constexpr const char* kOp = "training_arguments";
// Far beyond any run, and far enough below 2⁶³ to count with.
constexpr double kMaxSteps = 1e15;
constexpr double kMaxEpochs = 1e9;
constexpr std::int64_t kMaxBatch = 1'000'000'000;

constexpr std::array<std::pair<SchedulerType, std::string_view>, 7> kSchedulers = {{
    {SchedulerType::linear, "linear"},
    {SchedulerType::cosine, "cosine"},
    {SchedulerType::cosine_with_restarts, "cosine_with_restarts"},
    {SchedulerType::polynomial, "polynomial"},
    {SchedulerType::constant, "constant"},
    {SchedulerType::constant_with_warmup, "constant_with_warmup"},
    {SchedulerType::inverse_sqrt, "inverse_sqrt"},
}};

// Calls f(name, field) for every field but those with names for values and the nested ones.
template <class Args, class F>
void for_each_field(Args& args, F&& f) {
  f("output_dir", args.output_dir);
  f("per_device_train_batch_size", args.per_device_train_batch_size);
  f("gradient_accumulation_steps", args.gradient_accumulation_steps);
  f("learning_rate", args.learning_rate);
  f("num_train_epochs", args.num_train_epochs);
  f("max_grad_norm", args.max_grad_norm);
  f("logging_steps", args.logging_steps);
  f("save_steps", args.save_steps);
  f("save_total_limit", args.save_total_limit);
  f("warmup_steps", args.warmup_steps);
  f("weight_decay", args.weight_decay);
  f("max_steps", args.max_steps);
  f("seed", args.seed);
  f("shuffle", args.shuffle);
  f("gradient_checkpointing", args.gradient_checkpointing);
  f("overwrite_output_dir", args.overwrite_output_dir);
  f("logging_first_step", args.logging_first_step);
  f("save_strategy", args.save_strategy);
  f("eval_strategy", args.eval_strategy);
  f("eval_steps", args.eval_steps);
  f("per_device_eval_batch_size", args.per_device_eval_batch_size);
  f("optim", args.optim);
  f("adam_beta1", args.adam_beta1);
  f("adam_beta2", args.adam_beta2);
  f("adam_epsilon", args.adam_epsilon);
  f("logging_strategy", args.logging_strategy);
  f("torch_checkpoints", args.torch_checkpoints);
}

struct FieldReader {
  const json& object;
  Problems& problems;
  std::set<std::string>& known;

  void operator()(const char* name, std::string& field) const {
    known.insert(name);
    field = detail::get_string_or(object, name, problems, field);
  }
  void operator()(const char* name, bool& field) const {
    known.insert(name);
    field = detail::get_bool_or(object, name, problems, field);
  }
  void operator()(const char* name, double& field) const {
    known.insert(name);
    field = detail::get_double_or(object, name, problems, field);
  }
  void operator()(const char* name, std::int64_t& field) const {
    known.insert(name);
    field = detail::get_int_or(object, name, problems, field);
  }
  void operator()(const char* name, std::uint64_t& field) const {
    std::optional<std::uint64_t> value;
    (*this)(name, value);
    if (value) field = *value;
  }
  void operator()(const char* name, std::optional<std::uint64_t>& field) const {
    known.insert(name);
    if (const json* value = detail::Keys(name).find(object)) {
      if (value->is_number_unsigned()) {
        field = value->get<std::uint64_t>();
      } else {
        problems.add(name, " is ", detail::describe(*value), "; expected an integer, 0 or more");
      }
    }
  }
};

SchedulerOptions read_scheduler_options(const json& kwargs, Problems& problems) {
  SchedulerOptions options;
  options.num_cycles = detail::find_double(kwargs, "num_cycles", problems);
  options.timescale = detail::find_int(kwargs, "timescale", problems);
  options.lr_end = detail::get_double_or(kwargs, "lr_end", problems, options.lr_end);
  options.power = detail::get_double_or(kwargs, "power", problems, options.power);
  for (const auto& item : kwargs.items()) {
    if (!std::set<std::string>{"num_cycles", "timescale", "lr_end", "power"}.contains(item.key())) {
      problems.add("unknown key lr_scheduler_kwargs.", item.key());
    }
  }
  return options;
}

void check_strategy(Problems& problems, const char* name, const std::string& value) {
  if (value != "no" && value != "steps" && value != "epoch") {
    problems.add(name, " is \"", value, "\"; expected \"no\", \"steps\" or \"epoch\"");
  }
}

// Error unless `dir` can take files, or can be made: a run should not learn it from its first
// checkpoint.
void check_writable(const std::filesystem::path& dir) {
  std::error_code ignored;
  std::filesystem::path nearest = dir;
  while (!nearest.empty() && !std::filesystem::exists(nearest, ignored)) {
    nearest = nearest.parent_path();
  }
  if (nearest.empty()) nearest = ".";
  LORAPP_CHECK(std::filesystem::is_directory(nearest, ignored), kOp, "output_dir ", dir.string(),
               " cannot be a folder: ", nearest.string(), " is not a folder");
  const int status = ::access(nearest.c_str(), W_OK | X_OK);
  const int reason = errno;
  LORAPP_CHECK(status == 0, kOp, "output_dir ", dir.string(),
               " cannot be written: ", nearest.string(), ": ",
               std::generic_category().message(reason));
}

}  // namespace

std::string_view scheduler_name(SchedulerType type) {
  for (const auto& [known, name] : kSchedulers) {
    if (known == type) return name;
  }
  return "unknown";
}

SchedulerType parse_scheduler_type(std::string_view name) {
  std::string names;
  for (const auto& [type, known] : kSchedulers) {
    if (known == name) return type;
    names += (names.empty() ? "" : ", ") + std::string(known);
  }
  detail::fail(kOp, "lr_scheduler_type is \"" + std::string(name) + "\"; expected one of " + names);
}

SchedulerOptions parse_scheduler_options(std::string_view text) {
  const json kwargs = detail::parse_json(text, kOp, "lr_scheduler_kwargs");
  LORAPP_CHECK(kwargs.is_object(), kOp, "lr_scheduler_kwargs is ", detail::describe(kwargs),
               "; expected an object such as {\"num_cycles\": 2}");
  Problems problems(kOp, "lr_scheduler_kwargs");
  const SchedulerOptions options = read_scheduler_options(kwargs, problems);
  problems.throw_if_any();
  return options;
}

void TrainingArguments::validate() const {
  Problems problems(kOp, "TrainingArguments");
  const auto at_least = [&problems](const char* name, std::int64_t value, std::int64_t least) {
    if (value < least) problems.add(name, " is ", value, "; expected ", least, " or more");
  };
  const auto not_negative = [&problems](const char* name, double value) {
    if (!(value >= 0) || !std::isfinite(value)) {
      problems.add(name, " is ", value, "; expected a number, 0 or more");
    }
  };
  const auto positive = [&problems](const char* name, double value) {
    if (!(value > 0) || !std::isfinite(value)) {
      problems.add(name, " is ", value, "; expected a number above 0");
    }
  };
  // A whole number of steps, or a fraction of all.
  const auto steps = [&problems](const char* name, double value, bool zero_allowed) {
    if (zero_allowed && value == 0) return;
    const bool whole = value >= 1 && value == std::floor(value) && value < kMaxSteps;
    if (!whole && !(value > 0 && value < 1)) {
      problems.add(name, " is ", value, "; expected a whole number of steps or a fraction below 1");
    }
  };
  const auto beta = [&problems](const char* name, double value) {
    if (!(value >= 0 && value < 1))
      problems.add(name, " is ", value, "; expected 0 ≤ ", name, " < 1");
  };

  // Products and sums of these two and a number of examples stay far below 2⁶³.
  const auto batch = [&problems](const char* name, std::int64_t value) {
    if (value < 1 || value > kMaxBatch) {
      problems.add(name, " is ", value, "; expected 1 to ", kMaxBatch);
    }
  };

  if (output_dir.empty()) problems.add("output_dir is empty");
  batch("per_device_train_batch_size", per_device_train_batch_size);
  batch("gradient_accumulation_steps", gradient_accumulation_steps);
  positive("learning_rate", learning_rate);
  if (max_steps <= 0) {
    positive("num_train_epochs", num_train_epochs);
    if (std::isfinite(num_train_epochs) && num_train_epochs > kMaxEpochs) {
      problems.add("num_train_epochs is ", num_train_epochs, "; expected at most ", kMaxEpochs);
    }
    if (max_steps != -1) {
      problems.add("max_steps is ", max_steps, "; expected 1 or more, or -1 for num_train_epochs");
    }
  }
  if (static_cast<double>(max_steps) > kMaxSteps) {
    problems.add("max_steps is ", max_steps, "; expected at most ", kMaxSteps);
  }
  not_negative("max_grad_norm", max_grad_norm);
  steps("logging_steps", logging_steps, false);
  steps("save_steps", save_steps, false);
  steps("eval_steps", eval_steps, false);
  steps("warmup_steps", warmup_steps, true);
  at_least("save_total_limit", save_total_limit, 0);
  not_negative("weight_decay", weight_decay);
  check_strategy(problems, "logging_strategy", logging_strategy);
  check_strategy(problems, "save_strategy", save_strategy);
  check_strategy(problems, "eval_strategy", eval_strategy);
  batch("per_device_eval_batch_size", per_device_eval_batch_size);
  if (gradient_checkpointing_mode == CheckpointingMode::none) {
    problems.add(
        "gradient_checkpointing_mode is \"none\"; expected \"selective\" or \"full\", and "
        "gradient_checkpointing false for none");
  }
  if (optim_state_bits() == 0) {
    problems.add("optim is \"", optim,
                 "\"; expected \"adamw_torch\", \"adamw_torch_fused\", \"adamw_8bit\" or "
                 "\"adamw_bnb_8bit\"");
  }
  beta("adam_beta1", adam_beta1);
  beta("adam_beta2", adam_beta2);
  positive("adam_epsilon", adam_epsilon);

  const SchedulerOptions& kwargs = lr_scheduler_kwargs;
  if (kwargs.num_cycles) positive("num_cycles", *kwargs.num_cycles);
  if (kwargs.timescale) at_least("timescale", *kwargs.timescale, 1);
  positive("power", kwargs.power);
  not_negative("lr_end", kwargs.lr_end);
  if (lr_scheduler_type == SchedulerType::polynomial && !(kwargs.lr_end < learning_rate)) {
    problems.add("lr_end is ", kwargs.lr_end, "; expected less than learning_rate, ",
                 learning_rate);
  }
  problems.throw_if_any();
}

void TrainingArguments::check_output_dir() const {
  std::error_code error;
  const std::filesystem::path dir = output_dir;
  check_writable(dir);
  if (!std::filesystem::exists(dir, error)) return;
  const bool empty = std::filesystem::is_empty(dir, error);
  LORAPP_CHECK(!error, kOp, "cannot read output_dir ", output_dir, ": ", error.message());
  LORAPP_CHECK(empty || overwrite_output_dir, kOp, "output_dir ", output_dir,
               " is not empty; set overwrite_output_dir to replace what is there, "
               "resume_from_checkpoint to continue, or choose another folder");
}

TrainingArguments TrainingArguments::from_file(const std::filesystem::path& path) {
  const json object = detail::read_json_object(path, kOp);
  Problems problems(kOp, path.string());
  TrainingArguments args;
  std::set<std::string> known = {"lr_scheduler_type", "lr_scheduler_kwargs",
                                 "gradient_checkpointing_mode"};
  const FieldReader reader{object, problems, known};
  for_each_field(args, reader);
  reader("data_seed", args.data_seed);
  if (const auto name = detail::find_string(object, "lr_scheduler_type", problems)) {
    try {
      args.lr_scheduler_type = parse_scheduler_type(*name);
    } catch (const Error& error) {
      problems.add(error.what());
    }
  }
  if (const auto name = detail::find_string(object, "gradient_checkpointing_mode", problems)) {
    try {
      args.gradient_checkpointing_mode = parse_checkpointing_mode(*name);
    } catch (const Error& error) {
      problems.add(error.what());
    }
  }
  if (const json* kwargs = detail::find_object(object, "lr_scheduler_kwargs", problems)) {
    args.lr_scheduler_kwargs = read_scheduler_options(*kwargs, problems);
  }
  for (const auto& item : object.items()) {
    if (!known.contains(item.key())) problems.add("unknown key ", item.key());
  }
  problems.throw_if_any();
  return args;
}

void TrainingArguments::save(const std::filesystem::path& path) const {
  json object = json::object();
  for_each_field(*this, [&object](const char* name, const auto& field) { object[name] = field; });
  if (data_seed) object["data_seed"] = *data_seed;
  object["lr_scheduler_type"] = scheduler_name(lr_scheduler_type);
  object["gradient_checkpointing_mode"] = checkpointing_mode_name(gradient_checkpointing_mode);
  const SchedulerOptions& options = lr_scheduler_kwargs;
  json kwargs = {{"lr_end", options.lr_end}, {"power", options.power}};
  kwargs["num_cycles"] = options.num_cycles ? json(*options.num_cycles) : json();
  kwargs["timescale"] = options.timescale ? json(*options.timescale) : json();
  object["lr_scheduler_kwargs"] = std::move(kwargs);
  detail::write_json_file(path, object);
}

}  // namespace lorapp
