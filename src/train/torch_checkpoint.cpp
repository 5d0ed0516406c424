// A checkpoint of transformers' Trainer is read part by part; scheduler.pt is only compared, since
// a schedule here is a function of the arguments and the step.
#include "train/torch_checkpoint.hpp"

#include "io/torch_file.hpp"

#include <lorapp/error.hpp>
#include <lorapp/train/checkpoints.hpp>
#include <lorapp/train/data_plan.hpp>

#include <cmath>
#include <utility>

namespace lorapp::detail {

namespace {

constexpr const char* kOp = "checkpoint";
constexpr const char* kSchedulerOp = "scheduler.pt";
constexpr double kTolerance = 1e-9;

bool close(double a, double b) {
  return std::abs(a - b) <= kTolerance * std::max(std::abs(a), std::abs(b));
}

// The first number of the list under `key`; a problem if there is none.
double first_of(const TorchFile& file, const char* key, Problems& problems) {
  const TorchValue* list = file.root().find(key);
  const auto* items = list != nullptr ? list->as<TorchItems>() : nullptr;
  if (items != nullptr && !items->empty()) {
    if (const auto* number = items->front()->as<double>()) return *number;
    if (const auto* whole = items->front()->as<std::int64_t>()) return static_cast<double>(*whole);
  }
  problems.add(kTorchSchedulerName, ": ", key, " is ",
               list == nullptr ? "missing" : list->describe(), "; expected a list of numbers");
  return std::nan("");
}

void check_scheduler(const std::filesystem::path& path,
                     const TrainerState& state,
                     const Schedule& schedule,
                     Problems& problems) {
  const TorchFile file = TorchFile::open(path, kSchedulerOp);
  const TorchValue* last = file.root().find("last_epoch");
  const auto* step = last != nullptr ? last->as<std::int64_t>() : nullptr;
  if (step == nullptr || *step != state.global_step) {
    problems.add(kTorchSchedulerName, " is at step ",
                 last == nullptr ? "nothing" : last->describe(), "; trainer_state.json says ",
                 state.global_step);
  }
  const double base = first_of(file, "base_lrs", problems);
  if (!std::isnan(base) && !close(base, schedule.learning_rate)) {
    problems.add("learning_rate was ", base, " and is now ", schedule.learning_rate);
    return;  // the next rate differs for that reason alone
  }
  // A run that is made longer or shorter goes on with other rates, in Python too.
  if (state.max_steps != schedule.max_steps) return;
  const double next = first_of(file, "_last_lr", problems);
  if (!std::isnan(next) && !close(next, schedule.at(state.global_step))) {
    problems.add("the learning rate of step ", state.global_step + 1, " would have been ", next,
                 " and is now ", schedule.at(state.global_step),
                 ": lr_scheduler_type, lr_scheduler_kwargs or warmup_steps differ");
  }
}

// Nothing in the folder says how the data was read; where the epoch stands shows most of it.
void check_data(const TrainerState& state,
                const TrainingArguments& args,
                std::int64_t num_examples,
                Problems& problems) {
  if (state.train_batch_size != 0 && state.train_batch_size != args.per_device_train_batch_size) {
    problems.add("per_device_train_batch_size was ", state.train_batch_size, " and is now ",
                 args.per_device_train_batch_size);
  }
  const DataPlan plan = DataPlan::of(args, num_examples);
  const std::int64_t last = state.global_step - 1;
  const double epoch = plan.epoch_after(last / plan.windows(), last % plan.windows());
  if (!close(epoch, state.epoch)) {
    problems.add("after ", state.global_step, " steps the epoch was ", state.epoch,
                 " and would now be ", epoch,
                 ": the batch size, gradient_accumulation_steps or the number of examples, ",
                 num_examples, ", differ");
  }
}

}  // namespace

TrainerState load_torch_checkpoint(const std::filesystem::path& dir,
                                   CausalLM& model,
                                   AdamW& optimizer,
                                   const TrainingArguments& args,
                                   std::int64_t num_examples) {
  Problems problems(kOp, "cannot continue from " + dir.string());
  const auto part = [&](auto&& read) {
    try {
      read();
    } catch (const Error& error) {
      problems.add(error.what());
    }
  };
  TrainerState state;
  part([&] {
    state = TrainerState::from_file(dir / "trainer_state.json");
    LORAPP_CHECK(state.global_step > 0, kOp, "trainer_state.json says that no step is done");
    check_data(state, args, num_examples, problems);
    const std::int64_t max_steps = max_steps_of(args, DataPlan::of(args, num_examples).windows());
    check_scheduler(dir / kTorchSchedulerName, state, schedule_of(args, max_steps), problems);
  });
  // The weights come first: half-precision parameters begin their float32 copies from them.
  part([&] { load_trained_weights(model, dir); });
  part([&] {
    optimizer.load_torch(dir / kTorchOptimizerName);
    LORAPP_CHECK(state.global_step == 0 || optimizer.num_steps() == state.global_step, kOp,
                 kTorchOptimizerName, " has done ", optimizer.num_steps(),
                 " steps; trainer_state.json says ", state.global_step);
  });
  problems.throw_if_any();
  return state;
}

void save_torch_state(const std::filesystem::path& dir,
                      const AdamW& optimizer,
                      const Schedule& schedule,
                      std::int64_t step) {
  const double next = schedule.at(step);
  optimizer.save_torch(dir / kTorchOptimizerName, next, schedule.learning_rate);
  TorchWriter out;
  const auto key = [&](const char* name) -> TorchWriter& {
    out.text(name);
    return out;
  };
  // One value for each of the optimizer's two groups.
  const auto pair_of = [&](const char* name, auto&& value) {
    key(name).begin_list();
    value();
    value();
    out.end_list();
  };
  out.begin_dict();
  pair_of("base_lrs", [&] { out.number(schedule.learning_rate); });
  key("last_epoch").integer(step);
  key("_step_count").integer(step + 1);
  key("_is_initial").boolean(false);
  key("_get_lr_called_within_step").boolean(false);
  pair_of("_last_lr", [&] { out.number(next); });
  // Functions have no state here; torch keeps that of callable objects.
  pair_of("lr_lambdas", [&] { out.none(); });
  out.end_dict();
  out.write(dir / kTorchSchedulerName, kSchedulerOp);
}

}  // namespace lorapp::detail
