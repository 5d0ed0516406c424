// Checkpoints in the form of transformers' Trainer: written, read back, and refused where broken.
#include "io/torch_file.hpp"
#include "run.hpp"

#include <doctest/doctest.h>
#include <torch/types.h>

#include <functional>

using namespace lorapp;
using namespace lorapp::test;

namespace {

TrainingArguments torch_args(const std::filesystem::path& output_dir) {
  TrainingArguments args = tiny_args(output_dir);
  args.torch_checkpoints = true;
  return args;
}

// A run stopped after `step` steps, and its checkpoint as transformers' Trainer has it.
std::filesystem::path torch_checkpoint(const TemporaryFolder& folder, std::int64_t step) {
  PeftModel model = tiny_peft(0);
  Trainer trainer(model, torch_args(folder / "run"), tiny_dataset(22));
  trainer.add_callback(stop_after(step));
  trainer.train();
  const auto dir = folder / "run" / ("checkpoint-" + std::to_string(step));
  for (const char* file : {"optimizer.safetensors", "progress.json", "training_args.json"}) {
    std::filesystem::remove(dir / file);
  }
  return dir;
}

std::string error_of_resuming(const TemporaryFolder& folder,
                              const std::filesystem::path& checkpoint,
                              const std::function<void(TrainingArguments&)>& change = {},
                              std::int64_t examples = 22) {
  PeftModel model = tiny_peft(0);
  TrainingArguments args = torch_args(folder / "refused");
  if (change) change(args);
  Trainer trainer(model, args, tiny_dataset(examples));
  return error_of([&] { trainer.train(checkpoint); });
}

// One entry of an optimizer.pt for one small parameter.
struct Optimizer {
  double step = 3;
  std::vector<std::int64_t> shape = {2, 3};
  double first = 0.5;   // of exp_avg
  double second = 0.5;  // of exp_avg_sq
  double weight_decay = 0.01;
  bool amsgrad = false;
  std::int64_t id = 0;
  int states = 1;

  std::filesystem::path write(const TemporaryFolder& folder) const {
    lorapp::detail::TorchWriter out;
    out.begin_dict();
    out.text("state");
    out.begin_dict();
    for (int i = 0; i < states; ++i) {
      out.integer(i);
      out.begin_dict();
      out.text("step");
      out.tensor(torch::full({}, step, torch::kFloat32));
      out.text("exp_avg");
      out.tensor(torch::full(shape, first, torch::kFloat32));
      out.text("exp_avg_sq");
      out.tensor(torch::full(shape, second, torch::kFloat32));
      out.end_dict();
    }
    out.end_dict();
    out.text("param_groups");
    out.begin_list();
    for (const bool decays : {true, false}) {
      out.begin_dict();
      out.text("weight_decay");
      out.number(decays ? weight_decay : 0);
      out.text("betas");
      out.begin_tuple();
      out.number(0.9);
      out.number(0.999);
      out.end_tuple();
      out.text("eps");
      out.number(1e-8);
      out.text("amsgrad");
      out.boolean(amsgrad);
      out.text("params");
      out.begin_list();
      if (decays) out.integer(id);
      out.end_list();
      out.end_dict();
    }
    out.end_list();
    out.end_dict();
    out.write(folder / "optimizer.pt", "test");
    return folder / "optimizer.pt";
  }
};

}  // namespace

TEST_SUITE_BEGIN("train");

TEST_CASE("torch_checkpoint: a run that goes on from optimizer.pt gives the bits of a whole one") {
  const TemporaryFolder folder;
  PeftModel whole = tiny_peft(0);
  Trainer uninterrupted(whole, tiny_args(folder / "whole"), tiny_dataset(22));
  uninterrupted.train();
  for (const std::int64_t cut : {4, 6}) {  // in an epoch and between two
    CAPTURE(cut);
    const TemporaryFolder own;
    const auto checkpoint = torch_checkpoint(own, cut);
    CHECK(is_torch_checkpoint(checkpoint));
    PeftModel model(tiny_model(), LoraConfig{.r = 4, .lora_alpha = 8, .lora_dropout = 0}, 99);
    Trainer trainer(model, torch_args(own / "on"), tiny_dataset(22));
    CHECK(trainer.train(checkpoint).global_step == 9);
    CHECK(same_bits(values_of(model), values_of(whole)));
    CHECK(trainer.state().log_history.size() == uninterrupted.state().log_history.size());
  }
}

TEST_CASE("torch_checkpoint: checkpoints hold optimizer.pt only where they are asked to") {
  const TemporaryFolder folder;
  PeftModel model = tiny_peft(0);
  Trainer(model, tiny_args(folder / "plain"), tiny_dataset(22)).train();
  CHECK(!std::filesystem::exists(folder / "plain/checkpoint-9/optimizer.pt"));
  Trainer(model, torch_args(folder / "both"), tiny_dataset(22)).train();
  CHECK(std::filesystem::exists(folder / "both/checkpoint-9/optimizer.pt"));
  CHECK(std::filesystem::exists(folder / "both/checkpoint-9/scheduler.pt"));
  CHECK(!is_torch_checkpoint(folder / "both/checkpoint-9"));
}

TEST_CASE("torch_checkpoint: other arguments than the run had are one Error that lists them") {
  const TemporaryFolder folder;
  const auto checkpoint = torch_checkpoint(folder, 4);
  const std::string error = error_of_resuming(folder, checkpoint, [](TrainingArguments& args) {
    args.per_device_train_batch_size = 4;
    args.weight_decay = 0.02;
    args.adam_beta2 = 0.99;
    args.learning_rate = 1e-3;
  });
  CHECK(contains(error, "per_device_train_batch_size was 3 and is now 4"));
  CHECK(contains(error, "the epoch was 1.375 and would now be"));
  CHECK(contains(error, "weight_decay was 0.01"));
  CHECK(contains(error, "adam_beta2 was 0.999"));
  CHECK(contains(error, "learning_rate was 0.005 and is now 0.001"));
  CHECK(contains(error_of_resuming(folder, checkpoint, {}, 25), "the number of examples, 25"));
  CHECK(contains(
      error_of_resuming(folder, checkpoint, [](TrainingArguments& args) { args.warmup_steps = 3; }),
      "the learning rate of step 5 would have been"));
  // A run that is made longer goes on, with the rates of the longer one.
  CHECK(error_of_resuming(folder, checkpoint, [](TrainingArguments& args) {
          args.num_train_epochs = 4;
        }).empty());
}

TEST_CASE("torch_checkpoint: what is wrong with each file of a folder is in one Error") {
  const TemporaryFolder folder;
  const auto checkpoint = torch_checkpoint(folder, 4);
  const std::string optimizer = read_file(checkpoint / "optimizer.pt");
  folder.write("run/checkpoint-4/optimizer.pt", optimizer.substr(0, optimizer.size() / 2));
  folder.write("run/checkpoint-4/scheduler.pt", "nothing");
  std::filesystem::remove(checkpoint / "adapter_model.safetensors");
  const std::string error = error_of_resuming(folder, checkpoint);
  CHECK(contains(error, "optimizer.pt is cut short"));
  CHECK(contains(error, "scheduler.pt is no zip archive"));
  CHECK(contains(error, "adapter_model.safetensors"));
  CHECK(!std::filesystem::exists(folder / "refused"));
}

TEST_CASE("torch_checkpoint: an optimizer.pt that does not fit is an Error and changes nothing") {
  const TemporaryFolder folder;
  torch::Tensor weight = torch::full({2, 3}, 2.0F);
  AdamW optimizer({{"layer.lora_A.weight", weight}}, {.weight_decay = 0.01});
  const auto refuse = [&](const Optimizer& file) {
    const auto path = file.write(folder);
    const std::string error = error_of([&] { optimizer.load_torch(path); });
    CHECK(optimizer.num_steps() == 0);
    return error;
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK(contains(refuse({.step = nan}), "step of layer.lora_A.weight is nan"));
  CHECK(contains(refuse({.step = 0}), "expected a whole number, 1 or more"));
  CHECK(contains(refuse({.step = 2.5}), "is 2.5; expected a whole number"));
  CHECK(contains(refuse({.step = 1e30}), "expected a whole number"));
  CHECK(contains(refuse({.shape = {3, 2}}), "is a tensor [3, 2] of Float; expected a floating"));
  CHECK(contains(refuse({.first = nan}), "exp_avg of layer.lora_A.weight holds values"));
  CHECK(contains(refuse({.second = -1}), "exp_avg_sq of layer.lora_A.weight holds values"));
  CHECK(contains(refuse({.weight_decay = 0}), "weight_decay was 0 for the parameters with"));
  CHECK(contains(refuse({.amsgrad = true}), "amsgrad is True; expected False"));
  CHECK(contains(refuse({.id = 5}), "there is no state of parameter 5, layer.lora_A.weight"));
  CHECK(contains(refuse({.states = 2}), "it has the state of 2 parameters; this model trains 1"));
  const std::string several = refuse({.step = nan, .shape = {6}, .amsgrad = true});
  CHECK(contains(several, "step of"));
  CHECK(contains(several, "exp_avg of"));
  CHECK(contains(several, "exp_avg_sq of"));
  CHECK(contains(several, "amsgrad"));

  lorapp::detail::TorchWriter list;
  list.begin_list();
  list.end_list();
  list.write(folder / "list.pt", "test");
  CHECK(contains(error_of([&] { optimizer.load_torch(folder / "list.pt"); }), "holds a list of 0"));

  optimizer.load_torch(Optimizer().write(folder));
  CHECK(optimizer.num_steps() == 3);
}

TEST_CASE("torch_checkpoint: parameters are numbered as PEFT's model holds them, decay first") {
  const std::string layer = "base_model.model.model.layers.";
  const std::vector<std::string> names = {
      "base_model.model.lm_head.weight",
      "base_model.model.model.norm.weight",
      layer + "10.self_attn.v_proj.lora_B.weight",
      layer + "10.self_attn.v_proj.lora_A.weight",
      layer + "2.mlp.down_proj.lora_A.weight",
      layer + "2.mlp.gate_proj.lora_A.weight",
      layer + "2.self_attn.o_proj.lora_A.weight",
      layer + "2.self_attn.q_proj.lora_B.bias",
      layer + "2.self_attn.q_proj.base_layer.bias",
      "base_model.model.model.embed_tokens.lora_embedding_B",
      "base_model.model.model.embed_tokens.lora_embedding_A",
      layer + "2.input_layernorm.weight",
  };
  const std::vector<std::size_t> want = {10, 9, 6, 5, 4, 3, 2, 0, 8, 7, 11, 1};
  CHECK(torch_parameter_order(names) == want);
}

TEST_CASE("trainer_state: transformers' file is read, with its best checkpoint and its NaN") {
  const TemporaryFolder folder;
  const auto path = folder.write("trainer_state.json", R"({
  "best_global_step": 20, "best_metric": 0.25, "best_model_checkpoint": "out/NaN \"Infinity\"",
  "epoch": 0.8, "eval_steps": 500, "global_step": 2, "is_hyper_param_search": false,
  "is_local_process_zero": true, "is_world_process_zero": true,
  "log_history": [
    {"epoch": 0.4, "grad_norm": NaN, "learning_rate": 5e-05, "loss": 4.5, "step": 1},
    {"epoch": 0.8, "grad_norm": Infinity, "learning_rate": 4e-05, "loss": -Infinity, "step": 2}],
  "logging_steps": 1, "max_steps": 4, "num_input_tokens_seen": 0, "num_train_epochs": 2,
  "save_steps": 0.5, "stateful_callbacks": {}, "total_flos": 21603840.0, "train_batch_size": 2,
  "trial_name": null, "trial_params": null})");
  const TrainerState state = TrainerState::from_file(path);
  CHECK(state.epoch == 0.8);
  CHECK(state.global_step == 2);
  CHECK(state.best_metric == 0.25);
  CHECK(state.best_global_step == 20);
  CHECK(state.best_model_checkpoint == "out/NaN \"Infinity\"");
  REQUIRE(state.log_history.size() == 2);
  CHECK(state.log_history[0].at("loss") == 4.5);
  CHECK(std::isnan(state.log_history[0].at("grad_norm")));
  CHECK(std::isnan(state.log_history[1].at("loss")));
  state.save(folder / "again.json");
  const std::string again = read_file(folder / "again.json");
  CHECK(contains(again, "\"best_metric\": 0.25"));
  CHECK(contains(again, "\"grad_norm\": null"));
  CHECK(TrainerState::from_file(folder / "again.json").best_global_step == 20);
}

TEST_SUITE_END();
