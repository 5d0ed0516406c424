// The same run in transformers' Trainer: the same adapter to begin from, rows and arguments.
#include "run.hpp"

#include <lorapp/io/safetensors.hpp>
#include <lorapp/nn/quantize_pretrained.hpp>

#include "support/golden.hpp"

#include <doctest/doctest.h>
#include <torch/types.h>
#include <nlohmann/json.hpp>

#include <cstdlib>
#include <fstream>
#include <map>
#include <optional>
#include <string>
#include <vector>

using namespace lorapp;
using namespace lorapp::test;

namespace {

using nlohmann::json;

constexpr std::int64_t kExamples = 22;

// bitsandbytes 0.50.2 dequantizes rows that are no multiple of the block size wrongly on a CPU.
ModelConfig config_of_whole_blocks() {
  ModelConfig config = tiny_config();
  config.hidden_size = 128;
  config.intermediate_size = 192;
  config.head_dim = 32;
  config.sliding_window = 7;
  config.initializer_range = 0.1;
  return config;
}

// 8 micro-batches of 3 (the last of 1), windows of 3, 3 and 2: 21 steps in 7 epochs.
TrainingArguments arguments() {
  TrainingArguments args;
  args.per_device_train_batch_size = 3;
  args.gradient_accumulation_steps = 3;
  args.num_train_epochs = 7;
  args.learning_rate = 2e-3;
  args.weight_decay = 0.1;
  args.max_grad_norm = 1;
  args.logging_steps = 1;
  args.save_strategy = "no";
  args.save_total_limit = 0;
  return args;
}

struct Case {
  std::string model = "model";  // folder for transformers
  std::string adapter = "start";
  std::string quant = {};   // what transformers makes of it
  std::string base = {};    // folder for lorapp; empty: `model`
  std::string ours = {};    // an adapter of lorapp, whose logits transformers checks
  std::string resume = {};  // checkpoint for transformers
  std::string dtype = "float32";
  TrainingArguments args = arguments();
};

std::map<std::string, Case> runs() {
  std::map<std::string, Case> all;
  all["linear"].args.warmup_steps = 3;
  all["restarts"].args.lr_scheduler_type = SchedulerType::cosine_with_restarts;
  all["restarts"].args.lr_scheduler_kwargs.num_cycles = 2;
  all["polynomial"].args.lr_scheduler_type = SchedulerType::polynomial;
  all["polynomial"].args.lr_scheduler_kwargs.power = 2;
  all["polynomial"].args.lr_scheduler_kwargs.lr_end = 1e-4;
  all["polynomial"].args.data_seed = 7;
  all["polynomial"].args.adam_beta1 = 0.85;
  all["polynomial"].args.adam_beta2 = 0.99;
  all["polynomial"].args.adam_epsilon = 1e-6;
  all["constant"].args.lr_scheduler_type = SchedulerType::constant;
  all["constant"].args.shuffle = false;
  all["constant"].args.logging_strategy = "epoch";
  all["constant"].args.logging_first_step = true;
  all["nf4_cosine"].args.lr_scheduler_type = SchedulerType::cosine;
  all["nf4_cosine"].args.warmup_steps = 0.1;
  all["nf4_cosine"].quant = "nf4";
  all["nf4_ours"].args.lr_scheduler_type = SchedulerType::inverse_sqrt;
  all["nf4_ours"].args.warmup_steps = 4;
  all["nf4_ours"].args.max_steps = 19;
  all["nf4_ours"].model = "nf4";
  all["double_theirs"].args.lr_scheduler_type = SchedulerType::constant_with_warmup;
  all["double_theirs"].args.warmup_steps = 5;
  all["double_theirs"].quant = "nf4_double";
  all["double_theirs"].base = "double_theirs/base";
  all["double_ours"].model = "double";
  all["bf16"] = all["linear"];
  all["bf16"].dtype = "bfloat16";
  all["nf4_bf16"] = all["nf4_cosine"];
  all["nf4_bf16"].dtype = "bfloat16";
  return all;
}

LoadOptions options_of(const Case& each) {
  LoadOptions options;
  options.dtype = each.dtype == "bfloat16" ? torch::kBFloat16 : torch::kFloat32;
  if (!each.quant.empty() || each.model == "nf4" || each.model == "double") {
    options.quant_config = QuantConfig{.compute_dtype = options.dtype};
  }
  return options;
}

void write_cases(const TemporaryFolder& folder,
                 const std::map<std::string, Case>& all,
                 const TokenizedDataset& data) {
  json plan;
  for (std::int64_t i = 0; i < data.size(); ++i) {
    const Example example = data.get(i);
    plan["examples"].push_back({{"input_ids", example.ids}, {"labels", example.labels}});
  }
  for (const auto& [name, each] : all) {
    const auto or_null = [](const std::string& text) { return text.empty() ? json() : json(text); };
    plan["cases"][name] = {{"model", each.model},
                           {"adapter", each.adapter},
                           {"quant", or_null(each.quant)},
                           {"dtype", each.dtype},
                           {"ours", or_null(each.ours)},
                           {"save_base", !each.base.empty() && each.base != each.model},
                           {"resume", or_null(each.resume)}};
    std::filesystem::create_directories(folder / name);
    each.args.save(folder / name / "training_args.json");
  }
  folder.write("cases.json", plan.dump());
}

bool run_transformers(const TemporaryFolder& folder) {
  const std::string command = std::string("'") + std::getenv("LORAPP_PEERS_PYTHON") +
                              "' '" LORAPP_TEST_SOURCE_DIR
                              "/tests/train/run_with_transformers.py' '" +
                              folder.path().string() + "'";
  return std::system(command.c_str()) == 0;
}

torch::Tensor logits(CausalLM& model, const TokenizedDataset& data) {
  const torch::NoGradGuard no_grad;
  return model.forward(PackedInput::single(data.get(0).ids)).to(torch::kFloat32);
}

std::vector<LogEntry> steps_of(const TrainerState& state) {
  std::vector<LogEntry> steps;
  for (const LogEntry& entry : state.log_history) {
    if (entry.contains("loss")) steps.push_back(entry);
  }
  return steps;
}

struct Log {
  std::vector<LogEntry> steps;
  double train_loss = 0;
};

Log log_of(const std::filesystem::path& folder) {
  const json log = json::parse(read_file(folder / "log.json"));
  Log result;
  result.train_loss = log.at("train_loss");
  for (const auto& entry : log.at("log")) result.steps.push_back(entry.get<LogEntry>());
  return result;
}

struct Run {
  PeftModel model;
  Log log;
};

Run run_lorapp(const TemporaryFolder& folder,
               const std::string& name,
               const Case& each,
               const TokenizedDataset& data,
               const std::optional<std::filesystem::path>& resume = {}) {
  const std::string base = each.base.empty() ? each.model : each.base;
  PeftModel model = PeftModel::from_pretrained(
      CausalLM::from_pretrained(folder / base, options_of(each)), folder / each.adapter, true);
  TrainingArguments args = each.args;
  args.output_dir = (folder / name / "lorapp").string();
  Trainer trainer(model, args, data);
  const TrainOutput output = trainer.train(resume);
  return {std::move(model), {steps_of(trainer.state()), output.train_loss}};
}

void check_same(const Log& got, const Log& want, bool double_quantized) {
  const double loss_bar = double_quantized ? 2e-5 : 1e-5;
  const double norm_bar = double_quantized ? 5e-4 : 1e-4;
  REQUIRE(got.steps.size() == want.steps.size());
  double worst_loss = 0;
  double worst_norm = 0;
  for (std::size_t i = 0; i < got.steps.size(); ++i) {
    CAPTURE(i);
    const auto error = [&](const char* key) {
      return relative_error(got.steps[i].at(key), want.steps[i].at(key));
    };
    worst_loss = std::max(worst_loss, error("loss"));
    worst_norm = std::max(worst_norm, error("grad_norm"));
    CHECK(error("loss") <= loss_bar);
    CHECK(error("grad_norm") <= norm_bar);
    CHECK(got.steps[i].at("step") == want.steps[i].at("step"));
    CHECK(got.steps[i].at("epoch") == doctest::Approx(want.steps[i].at("epoch")).epsilon(1e-12));
    CHECK(got.steps[i].at("learning_rate") ==
          doctest::Approx(want.steps[i].at("learning_rate")).epsilon(1e-12));
  }
  CHECK(relative_error(got.train_loss, want.train_loss) <= loss_bar);
  MESSAGE(got.steps.size(), " entries; losses within ", worst_loss, ", gradient norms within ",
          worst_norm);
}

// The root of the mean square of a run's distance from another.
double distance(const Log& log, const Log& reference) {
  double sum = 0;
  for (std::size_t i = 0; i < log.steps.size(); ++i) {
    const double error = log.steps[i].at("loss") - reference.steps.at(i).at("loss");
    sum += error * error;
  }
  return std::sqrt(sum / static_cast<double>(log.steps.size()));
}

bool has_peers() {
  if (std::getenv("LORAPP_PEERS_PYTHON") != nullptr) return true;
  MESSAGE("skipped: LORAPP_PEERS_PYTHON names no python that has transformers and peft");
  return false;
}

}  // namespace

TEST_SUITE_BEGIN("train_peers");

TEST_CASE(
    "peers: every schedule over a dense, a 4-bit and a double-quantized base gives transformers' "
    "losses, gradient norms and adapters") {
  if (!has_peers()) return;
  const OneThread one_thread;
  const TemporaryFolder folder;
  const TokenizedDataset data = tiny_dataset(kExamples);
  tiny_model(7, config_of_whole_blocks())->save_pretrained(folder / "model");
  quantize_pretrained(folder / "model", folder / "nf4", {});
  quantize_pretrained(folder / "model", folder / "double",
                      {.quant_config = {.use_double_quant = true}});
  PeftModel start(CausalLM::from_pretrained(folder / "model"),
                  LoraConfig{.r = 4,
                             .lora_alpha = 8,
                             .target_modules = {"q_proj", "v_proj", "down_proj"},
                             .lora_dropout = 0,
                             .init_lora_weights = LoraInit::random});
  start.save_pretrained(folder / "start");
  std::map<std::string, Case> all = runs();
  {
    Run first = run_lorapp(folder, "linear", all.at("linear"), data);
    first.model.save_pretrained(folder / "ours");
    write_safetensors(folder / "ours/logits.safetensors", {{"logits", logits(first.model, data)}});
    all.at("linear").ours = "ours";
    std::filesystem::remove_all(folder / "linear");
  }
  write_cases(folder, all, data);
  REQUIRE(run_transformers(folder));

  std::map<std::string, Log> got, want;
  for (const auto& [name, each] : all) {
    const auto& captured = name;  // clang 14 captures no binding
    CAPTURE(captured);
    Run run = run_lorapp(folder, name, each, data);
    got[name] = run.log;
    want[name] = log_of(folder / name);
    if (each.dtype == "bfloat16") continue;
    MESSAGE(captured);
    check_same(got[name], want[name], name.starts_with("double"));
    if (each.args.logging_strategy == "steps") {
      CHECK(got[name].steps.size() >= 18);
      // Clipping is active in some steps at least.
      CHECK(got[name].steps.front().at("grad_norm") > each.args.max_grad_norm);
    }
    // The adapter that transformers trained gives here the logits that it gave there.
    run.model.load_adapter_weights(folder / name / "theirs");
    const torch::Tensor theirs =
        SafetensorsFile::open(folder / name / "logits.safetensors").view("logits").clone();
    CHECK(relative_error(logits(run.model, data), theirs) <= 1e-5);
  }
  for (const auto& [half, whole] : {std::pair{"bf16", "linear"}, {"nf4_bf16", "nf4_cosine"}}) {
    const double ours = distance(got[half], want[whole]);
    const double theirs = distance(want[half], want[whole]);
    MESSAGE(std::string(half), ": ", ours, " from float32; transformers: ", theirs);
    CHECK(ours <= 1.5 * theirs);
  }
}

TEST_CASE("peers: a run goes on from transformers' checkpoint as it goes on there, and back") {
  if (!has_peers()) return;
  const OneThread one_thread;
  const TemporaryFolder folder;
  const TokenizedDataset data = tiny_dataset(kExamples);
  tiny_model(7, config_of_whole_blocks())->save_pretrained(folder / "model");
  ModelConfig llama = config_of_whole_blocks();
  llama.model_type = "llama";
  llama.architectures = {"LlamaForCausalLM"};
  llama.attention_bias = true;
  llama.sliding_window.reset();
  tiny_model(8, llama)->save_pretrained(folder / "llama");
  LoraConfig lora;
  lora.r = 4;
  lora.lora_dropout = 0;
  lora.init_lora_weights = LoraInit::random;
  LoraConfig parts = lora;  // parameters of both groups and of every kind, in PEFT's order
  parts.target_modules = {"v_proj", "q_proj", "down_proj", "gate_proj", "embed_tokens"};
  parts.bias = "lora_only";
  parts.modules_to_save = {"norm", "lm_head"};
  // Not k_proj: its smallest gradients are rounding, which Adam makes as large as any other, so
  // that transformers' own attention implementations leave each other by 1e-3 in 20 steps.
  lora.target_modules = {"q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"};
  PeftModel(CausalLM::from_pretrained(folder / "model"), lora).save_pretrained(folder / "start");
  PeftModel(CausalLM::from_pretrained(folder / "llama"), parts).save_pretrained(folder / "parts");

  // "whole_…" runs through and leaves checkpoints; "on_…" goes on in transformers from one of them,
  // "back_…" from one of lorapp's.
  std::map<std::string, Case> all;
  for (const std::string name : {"lora", "parts"}) {
    Case each;
    each.model = name == "parts" ? "llama" : "model";
    each.adapter = name == "parts" ? "parts" : "start";
    each.args.lr_scheduler_type = SchedulerType::cosine;
    each.args.learning_rate = 5e-4;
    each.args.warmup_steps = 2;
    each.args.save_strategy = "steps";
    each.args.save_steps = 10;  // in the middle of the fourth epoch
    each.args.torch_checkpoints = true;
    all["a_whole_" + name] = each;
    run_lorapp(folder, "a_whole_" + name, each, data);
    each.args.save_strategy = "no";
    each.resume = "a_whole_" + name + "/out/checkpoint-10";
    all["on_" + name] = each;
    each.resume = "lorapp_" + name;
    all["back_" + name] = each;
    // As it looks to Python: without what only lorapp reads.
    std::filesystem::rename(folder / ("a_whole_" + name) / "lorapp/checkpoint-10",
                            folder / each.resume);
    for (const char* file : {"optimizer.safetensors", "progress.json", "training_args.json"}) {
      std::filesystem::remove(folder / each.resume / file);
    }
  }
  std::map<std::string, Log> whole;
  for (const std::string name : {"lora", "parts"}) {
    std::filesystem::remove_all(folder / ("a_whole_" + name) / "lorapp");
    whole[name] = run_lorapp(folder, "a_whole_" + name, all.at("a_whole_" + name), data).log;
  }
  write_cases(folder, all, data);
  REQUIRE(run_transformers(folder));

  for (const std::string name : {"lora", "parts"}) {
    CAPTURE(name);
    check_same(whole[name], log_of(folder / ("a_whole_" + name)), false);
    const Case& on = all.at("on_" + name);
    // Each goes on from the other's checkpoint with the history in it.
    const Log theirs_on = log_of(folder / ("on_" + name));
    CHECK(theirs_on.steps.size() == 21);
    check_same(run_lorapp(folder, "on_" + name, on, data, folder / on.resume).log, theirs_on,
               false);
    const Log back = log_of(folder / ("back_" + name));
    Log want = whole[name];
    want.train_loss = back.train_loss;  // a mean over the steps of one call
    check_same(back, want, false);
    // And lorapp from its own checkpoint without its own files.
    const Case& again = all.at("back_" + name);
    Log got = run_lorapp(folder, "back_" + name, again, data, folder / again.resume).log;
    got.train_loss = want.train_loss;
    check_same(got, want, false);
  }
}

TEST_SUITE_END();
