// trainer_state.json in transformers' schema, and progress.json.
#include "json_file.hpp"

#include <lorapp/error.hpp>
#include <lorapp/train/callbacks.hpp>
#include <lorapp/train/checkpoints.hpp>

#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace lorapp {

namespace {

using nlohmann::json;

constexpr const char* kStateOp = "trainer_state";
constexpr const char* kProgressOp = "training_progress";

// Entries that Python counts with integers.
bool is_count(const std::string& key) { return key == "step" || key == "num_input_tokens_seen"; }

json entry_to_json(const LogEntry& entry) {
  json object = json::object();
  for (const auto& [key, value] : entry) {
    if (!std::isfinite(value)) {
      object[key] = nullptr;
    } else {
      object[key] = is_count(key) ? json(static_cast<std::int64_t>(value)) : json(value);
    }
  }
  return object;
}

template <class T>
json value_or_null(const std::optional<T>& value) {
  return value ? json(*value) : json();
}

// Python's json writes NaN, Infinity and -Infinity, which are no JSON, for such numbers: null.
std::string without_nan(const std::string& text) {
  std::string out;
  out.reserve(text.size());
  bool in_string = false;
  for (std::size_t i = 0; i < text.size();) {
    const char c = text[i];
    if (in_string && c == '\\' && i + 1 < text.size()) {
      out.append(text, i, 2);
      i += 2;
      continue;
    }
    if (c == '"') in_string = !in_string;
    std::size_t length = 0;
    if (!in_string) {
      for (const std::string_view word : {"NaN", "-Infinity", "Infinity"}) {
        if (length == 0 && text.compare(i, word.size(), word) == 0) length = word.size();
      }
    }
    if (length > 0) {
      out += "null";
      i += length;
    } else {
      out += c;
      ++i;
    }
  }
  return out;
}

}  // namespace

TrainerCallback::~TrainerCallback() = default;

void TrainerState::save(const std::filesystem::path& path) const {
  json object;
  object["best_global_step"] = value_or_null(best_global_step);
  object["best_metric"] = value_or_null(best_metric);
  object["best_model_checkpoint"] = value_or_null(best_model_checkpoint);
  object["epoch"] = epoch;
  object["eval_steps"] = eval_steps;
  object["global_step"] = global_step;
  object["is_hyper_param_search"] = false;
  object["is_local_process_zero"] = true;
  object["is_world_process_zero"] = true;
  object["log_history"] = json::array();
  for (const LogEntry& entry : log_history) object["log_history"].push_back(entry_to_json(entry));
  object["logging_steps"] = logging_steps;
  object["max_steps"] = max_steps;
  object["num_input_tokens_seen"] = num_input_tokens_seen;
  object["num_train_epochs"] = num_train_epochs;
  object["save_steps"] = save_steps;
  object["stateful_callbacks"] = {{"TrainerControl",
                                   {{"args",
                                     {{"should_epoch_stop", false},
                                      {"should_evaluate", false},
                                      {"should_log", false},
                                      {"should_save", true},
                                      {"should_training_stop", global_step >= max_steps}}},
                                    {"attributes", json::object()}}}};
  object["total_flos"] = total_flos;
  object["train_batch_size"] = train_batch_size;
  object["trial_name"] = nullptr;
  object["trial_params"] = nullptr;
  detail::write_json_file(path, object);
}

TrainerState TrainerState::from_file(const std::filesystem::path& path) {
  const json object = detail::parse_json(without_nan(detail::read_text_file(path, kStateOp)),
                                         kStateOp, path.string());
  LORAPP_CHECK(object.is_object(), kStateOp, path.string(), " holds ", detail::describe(object),
               "; expected an object");
  Problems problems(kStateOp, path.string());
  TrainerState state;
  const auto count = [&](const char* key) { return detail::get_int(object, key, problems, 0); };
  // transformers lets these be fractions of max_steps until a run begins.
  const auto steps = [&](const char* key) {
    return static_cast<std::int64_t>(detail::get_double_or(object, key, problems, 0, 0, 1e15));
  };
  state.epoch = detail::get_double(object, "epoch", problems, 0);
  state.global_step = count("global_step");
  state.max_steps = count("max_steps");
  state.logging_steps = steps("logging_steps");
  state.eval_steps = steps("eval_steps");
  state.save_steps = steps("save_steps");
  state.train_batch_size = detail::get_int_or(object, "train_batch_size", problems, 0, 0);
  state.num_train_epochs = count("num_train_epochs");
  state.num_input_tokens_seen = count("num_input_tokens_seen");
  state.total_flos = detail::get_double(object, "total_flos", problems, 0);
  state.best_metric = detail::find_double(object, "best_metric", problems);
  state.best_global_step = detail::find_int(object, "best_global_step", problems, 0);
  state.best_model_checkpoint = detail::find_string(object, "best_model_checkpoint", problems);
  const json* history = detail::Keys("log_history").find(object);
  if (history == nullptr || !history->is_array()) {
    problems.add("log_history is missing or not a list");
  } else {
    for (std::size_t i = 0; i < history->size(); ++i) {
      LogEntry entry;
      if (!(*history)[i].is_object()) {
        problems.add("log_history[", i, "] is ", detail::describe((*history)[i]));
        continue;
      }
      for (const auto& item : (*history)[i].items()) {
        if (item.value().is_number()) {
          entry[item.key()] = item.value().get<double>();
        } else if (item.value().is_null()) {
          entry[item.key()] = std::numeric_limits<double>::quiet_NaN();
        } else {
          problems.add("log_history[", i, "].", item.key(), " is ", detail::describe(item.value()),
                       "; expected a number");
        }
      }
      state.log_history.push_back(std::move(entry));
    }
  }
  problems.throw_if_any();
  return state;
}

void TrainingProgress::save(const std::filesystem::path& path) const {
  json object;
  object["format_version"] = 1;
  object["last_logged_step"] = last_logged_step;
  object["last_window_hash"] = value_or_null(last_window_hash);
  object["loss_since_log"] = loss_since_log;
  object["num_examples"] = num_examples;
  detail::write_json_file(path, object);
}

TrainingProgress TrainingProgress::from_file(const std::filesystem::path& path) {
  const json object = detail::read_json_object(path, kProgressOp);
  Problems problems(kProgressOp, path.string());
  TrainingProgress progress;
  detail::get_int(object, "format_version", problems, 1, 1);
  progress.last_logged_step = detail::get_int(object, "last_logged_step", problems, 0);
  progress.loss_since_log = detail::get_double(object, "loss_since_log", problems);
  progress.num_examples = detail::get_int(object, "num_examples", problems, 1);
  if (const json* hash = detail::Keys("last_window_hash").find(object)) {
    if (hash->is_number_unsigned()) {
      progress.last_window_hash = hash->get<std::uint64_t>();
    } else {
      problems.add("last_window_hash is ", detail::describe(*hash),
                   "; expected an integer, 0 or more");
    }
  }
  problems.throw_if_any();
  return progress;
}

}  // namespace lorapp
