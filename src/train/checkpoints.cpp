// checkpoint-<step> folders: what is trained, written whole, found again, rotated.
#include "atomic_file.hpp"
#include "train/torch_checkpoint.hpp"

#include <lorapp/error.hpp>
#include <lorapp/io/checkpoint.hpp>
#include <lorapp/peft/peft_model.hpp>
#include <lorapp/train/checkpoints.hpp>

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>
#include <string_view>
#include <system_error>
#include <utility>

namespace lorapp {

namespace {

constexpr const char* kOp = "checkpoint";
constexpr std::string_view kFolderPrefix = "checkpoint-";
constexpr const char* kOptimizerName = "optimizer.safetensors";
constexpr const char* kStateName = "trainer_state.json";
constexpr const char* kArgumentsName = "training_args.json";
constexpr const char* kProgressName = "progress.json";

// The step of a folder named checkpoint-<step>.
std::optional<std::int64_t> step_of(const std::filesystem::path& folder) {
  const std::string name = folder.filename().string();
  if (!name.starts_with(kFolderPrefix)) return std::nullopt;
  std::int64_t step = 0;
  const char* end = name.data() + name.size();
  const auto read = std::from_chars(name.data() + kFolderPrefix.size(), end, step);
  if (read.ec != std::errc() || read.ptr != end || step < 0) return std::nullopt;
  return step;
}

std::filesystem::path without_trailing_slash(std::filesystem::path path) {
  return path.has_filename() ? path : path.parent_path();
}

// The values of a plain model's parameters, all or none.
void load_plain_weights(CausalLM& model, const std::filesystem::path& dir) {
  const Checkpoint file = Checkpoint::open(dir);
  Problems problems(kOp, dir.string());
  const auto parameters = model.named_parameters();
  std::set<std::string> expected;
  for (const auto& parameter : parameters) {
    expected.insert(parameter.key());
    if (!file.contains(parameter.key())) {
      problems.add("missing ", parameter.key());
    } else if (torch::IntArrayRef(file.info(parameter.key()).shape) != parameter.value().sizes()) {
      problems.add(parameter.key(), " has the shape ",
                   torch::IntArrayRef(file.info(parameter.key()).shape), "; expected ",
                   parameter.value().sizes());
    }
  }
  for (const std::string& name : file.names()) {
    if (!expected.contains(name)) problems.add("unexpected ", name);
  }
  problems.throw_if_any();
  const torch::NoGradGuard no_grad;
  for (const auto& parameter : parameters) {
    torch::Tensor(parameter.value()).copy_(file.view(parameter.key()));
    file.release(parameter.key());
  }
}

// The run that wrote the checkpoint must have read the data in the order that this one does.
void check_same_plan(const TrainingArguments& then,
                     const TrainingArguments& now,
                     const TrainingProgress& progress,
                     std::int64_t num_examples,
                     const std::filesystem::path& dir) {
  Problems problems(kOp, "cannot continue from " + dir.string());
  const auto compare = [&problems](const char* name, auto before, auto after) {
    if (before != after) problems.add(name, " was ", before, " and is now ", after);
  };
  compare("per_device_train_batch_size", then.per_device_train_batch_size,
          now.per_device_train_batch_size);
  compare("gradient_accumulation_steps", then.gradient_accumulation_steps,
          now.gradient_accumulation_steps);
  compare("seed", then.seed, now.seed);
  compare("data_seed", then.data_seed.value_or(then.seed), now.data_seed.value_or(now.seed));
  compare("shuffle", then.shuffle, now.shuffle);
  compare("the number of examples", progress.num_examples, num_examples);
  problems.throw_if_any();
}

}  // namespace

std::vector<std::filesystem::path> list_checkpoints(const std::filesystem::path& output_dir) {
  std::vector<std::pair<std::int64_t, std::filesystem::path>> found;
  std::error_code error;
  if (!std::filesystem::is_directory(output_dir, error)) return {};
  std::filesystem::directory_iterator entry(output_dir, error);
  for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    const auto step = step_of(entry->path());
    std::error_code ignored;
    if (step && entry->is_directory(ignored)) found.emplace_back(*step, entry->path());
  }
  LORAPP_CHECK(!error, kOp, "cannot read ", output_dir.string(), ": ", error.message());
  std::sort(found.begin(), found.end());
  std::vector<std::filesystem::path> paths;
  for (auto& [step, path] : found) paths.push_back(std::move(path));
  return paths;
}

void remove_checkpoint(const std::filesystem::path& dir) {
  std::error_code error;
  std::filesystem::remove_all(dir, error);
  LORAPP_CHECK(!error, kOp, "cannot delete ", dir.string(), ": ", error.message());
}

std::filesystem::path find_checkpoint(const std::filesystem::path& resume,
                                      const std::filesystem::path& output_dir) {
  if (resume == "last") {
    const auto checkpoints = list_checkpoints(output_dir);
    LORAPP_CHECK(!checkpoints.empty(), kOp, "there is no checkpoint to resume from in ",
                 output_dir.string(), "; expected a folder ", kFolderPrefix, "<step>");
    return checkpoints.back();
  }
  std::error_code ignored;
  LORAPP_CHECK(std::filesystem::is_directory(resume, ignored), kOp, resume.string(),
               " is not a checkpoint folder; expected a folder, or the word last");
  return without_trailing_slash(resume);
}

std::vector<std::pair<std::string, torch::Tensor>> trained_parameters(CausalLM& model) {
  std::vector<std::pair<std::string, torch::Tensor>> parameters;
  const auto* adapted = dynamic_cast<const PeftModel*>(&model);
  if (adapted == nullptr) {
    for (const auto& parameter : model.named_parameters()) {
      if (parameter.value().requires_grad()) {
        parameters.emplace_back(parameter.key(), parameter.value());
      }
    }
    LORAPP_CHECK(!parameters.empty(), "trainer",
                 "the model has no parameter that requires "
                 "gradients; attach adapters to it or unfreeze it");
    return parameters;
  }

  LORAPP_CHECK(!adapted->is_merged() && adapted->adapter_enabled(), "trainer",
               "the adapters of the model are ", adapted->is_merged() ? "merged" : "switched off",
               ", so they would not train");
  std::set<const void*> saved;
  for (const auto& [name, tensor] : adapted->adapter_state()) {
    saved.insert(tensor.unsafeGetTensorImpl());
    if (tensor.requires_grad()) parameters.emplace_back(name, tensor);
  }
  LORAPP_CHECK(!parameters.empty(), "trainer",
               "the adapters of the model are frozen; load them "
               "with is_trainable to train them");
  Problems problems("trainer", "the model");
  for (const auto& parameter : model.named_parameters()) {
    if (parameter.value().requires_grad() &&
        !saved.contains(parameter.value().unsafeGetTensorImpl())) {
      problems.add(parameter.key(), " requires gradients but is not part of the adapter's files");
    }
  }
  problems.throw_if_any();
  return parameters;
}

std::filesystem::path save_checkpoint(const CausalLM& model,
                                      const AdamW& optimizer,
                                      const TrainingArguments& args,
                                      const TrainerState& state,
                                      const TrainingProgress& progress) {
  const std::filesystem::path output_dir = args.output_dir;
  const std::filesystem::path target =
      output_dir / (std::string(kFolderPrefix) + std::to_string(state.global_step));
  detail::AtomicDirectory folder(target, detail::AtomicDirectory::Existing::replace);
  model.save_pretrained(folder.path());
  optimizer.save(folder.path() / kOptimizerName);
  state.save(folder.path() / kStateName);
  args.save(folder.path() / kArgumentsName);
  progress.save(folder.path() / kProgressName);
  if (args.torch_checkpoints) {
    detail::save_torch_state(folder.path(), optimizer, schedule_of(args, state.max_steps),
                             state.global_step);
  }
  folder.commit();

  if (args.save_total_limit > 0) {
    std::vector<std::filesystem::path> all = list_checkpoints(output_dir);
    std::erase_if(all, [&](const auto& path) { return step_of(path) == state.global_step; });
    const auto keep = static_cast<std::size_t>(args.save_total_limit - 1);
    for (std::size_t i = 0; i + keep < all.size(); ++i) remove_checkpoint(all[i]);
  }
  return target;
}

bool is_torch_checkpoint(const std::filesystem::path& dir) {
  std::error_code ignored;
  return std::filesystem::exists(dir / detail::kTorchOptimizerName, ignored) &&
         !std::filesystem::exists(dir / kProgressName, ignored);
}

void detail::load_trained_weights(CausalLM& model, const std::filesystem::path& dir) {
  if (auto* adapted = dynamic_cast<PeftModel*>(&model)) {
    adapted->load_adapter_weights(dir);
  } else {
    load_plain_weights(model, dir);
  }
}

LoadedCheckpoint load_checkpoint(const std::filesystem::path& dir,
                                 CausalLM& model,
                                 AdamW& optimizer,
                                 const TrainingArguments& args,
                                 std::int64_t num_examples) {
  if (is_torch_checkpoint(dir)) {
    LoadedCheckpoint loaded;
    loaded.state = detail::load_torch_checkpoint(dir, model, optimizer, args, num_examples);
    loaded.progress.last_logged_step = loaded.state.global_step;
    return loaded;
  }
  LoadedCheckpoint loaded;
  loaded.state = TrainerState::from_file(dir / kStateName);
  loaded.progress = TrainingProgress::from_file(dir / kProgressName);
  check_same_plan(TrainingArguments::from_file(dir / kArgumentsName), args, loaded.progress,
                  num_examples, dir);
  detail::load_trained_weights(model, dir);
  optimizer.load(dir / kOptimizerName);
  LORAPP_CHECK(optimizer.num_steps() == loaded.state.global_step, kOp, dir.string(), ": ",
               kOptimizerName, " has done ", optimizer.num_steps(), " steps but ", kStateName,
               " says ", loaded.state.global_step);
  return loaded;
}

}  // namespace lorapp
