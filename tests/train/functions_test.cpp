#include "support/error_of.hpp"
#include "support/for_each_isa.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_model.hpp"

#include <lorapp/data/batch.hpp>
#include <lorapp/error.hpp>
#include <lorapp/train/adamw.hpp>
#include <lorapp/train/loss.hpp>
#include <lorapp/train/training_arguments.hpp>

#include <ATen/Parallel.h>
#include <doctest/doctest.h>
#include <torch/types.h>

#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <vector>

using namespace lorapp;
using namespace lorapp::test;

namespace {

Batch batch_of(const TokenizedDataset& dataset) {
  std::vector<const Example*> examples;
  for (std::int64_t i = 0; i < dataset.size(); ++i) examples.push_back(&dataset.get(i));
  return collate(examples);
}

}  // namespace

TEST_SUITE_BEGIN("train");

TEST_CASE("adamw: three clipped steps give torch.optim.AdamW's parameters") {
  // Made with torch 2.11: lr 1e-2, weight decay 0.1 and 0, clip_grad_norm_ 1.
  torch::Tensor p = torch::tensor({1.0f, -2.0f, 0.5f, 3.0f, 0.0f}).requires_grad_();
  torch::Tensor q = torch::tensor({0.25f, -0.75f, 1.5f}).requires_grad_();
  AdamW optimizer({{"layer.lora_A.weight", p}, {"layer.bias", q}}, {.weight_decay = 0.1});
  const float pg[3][5] = {{0.1f, -0.2f, 0.3f, 0.0f, 1e-6f},
                          {-0.4f, 0.25f, 0.1f, 5.0f, 2e-6f},
                          {0.01f, 0.02f, -0.7f, -3.0f, -4e-6f}};
  const float qg[3][3] = {{1, 2, -3}, {0.5f, -1, 1}, {0, 0, 2}};
  const double norms[3] = {3.760319232940674, 5.242375373840332, 3.6729414463043213};
  const double want_p[3][5] = {{0.9890000224113464, -1.9880000352859497, 0.4895000159740448,
                                2.996999979019165, -0.009637595154345036},
                               {0.9928339719772339, -1.9859933853149414, 0.4807625412940979,
                                2.9865617752075195, -0.0192707609385252},
                               {0.9953519105911255, -1.9844788312911987, 0.48363181948661804,
                                2.983363628387451, -0.016431787982583046}};
  const double want_q[3][3] = {{0.23999999463558197, -0.7599999904632568, 1.5099999904632568},
                               {0.23117989301681519, -0.7637935876846313, 1.5147854089736938},
                               {0.22436192631721497, -0.7667260766029358, 1.5143311023712158}};
  for (int step = 0; step < 3; ++step) {
    optimizer.zero_grad();
    (p * torch::tensor(at::ArrayRef<float>(pg[step], 5))).sum().backward();
    (q * torch::tensor(at::ArrayRef<float>(qg[step], 3))).sum().backward();
    optimizer.accumulate();
    const double norm = optimizer.grad_norm();
    CHECK(norm == doctest::Approx(norms[step]).epsilon(1e-6));
    optimizer.step(1e-2, clip_factor(norm, 1));
    for (int i = 0; i < 5; ++i) {
      CHECK(p[i].item<double>() == doctest::Approx(want_p[step][i]).epsilon(3e-6));
    }
    for (int i = 0; i < 3; ++i) {
      CHECK(q[i].item<double>() == doctest::Approx(want_q[step][i]).epsilon(3e-6));
    }
  }
}

TEST_CASE("adamw: names of biases and norms do not decay, LoRA's do") {
  for (const char* name : {"a.bias", "model.norm.weight", "x.input_layernorm.weight",
                           "q_norm.weight", "a.rmsnorm", "encoder.LayerNorm.weight"}) {
    CHECK_FALSE(has_weight_decay(name));
  }
  for (const char* name :
       {"a.lora_A.weight", "q_proj.lora_B.weight", "embed_tokens.weight", "normal.w"}) {
    CHECK(has_weight_decay(name));
  }
}

TEST_CASE("adamw: backward passes add up, in half precision too, and the norm ignores threads") {
  for (const auto dtype : {torch::kFloat32, torch::kBFloat16}) {
    torch::Tensor w = torch::zeros({300, 700}, dtype).requires_grad_();
    AdamW optimizer({{"w", w}}, {});
    for (int pass = 0; pass < 3; ++pass) {
      (w * 0.5).sum().backward();
      optimizer.accumulate();
    }
    const double norm = optimizer.grad_norm();
    CHECK(norm == doctest::Approx(1.5 * std::sqrt(210'000.0)));
    const int threads = at::get_num_threads();
    at::set_num_threads(1);
    CHECK(optimizer.grad_norm() == norm);
    at::set_num_threads(threads);
    optimizer.zero_grad();
    CHECK(optimizer.grad_norm() == 0);
  }
}

TEST_CASE("adamw: updates too small for bfloat16 are kept in the master copy") {
  torch::Tensor w = torch::ones({4}, torch::kBFloat16).requires_grad_();
  AdamW optimizer({{"w", w}}, {});
  for (int step = 0; step < 100; ++step) {  // 1e-4 each; bfloat16 near 1 has steps of 4e-3 below
    optimizer.zero_grad();
    w.sum().backward();
    optimizer.accumulate();
    optimizer.step(1e-4);
  }
  CHECK(w[0].item<double>() == doctest::Approx(0.99).epsilon(0.003));
}

TEST_CASE("adamw: a saved state continues bit for bit; a wrong file is refused whole") {
  const TemporaryFolder folder;
  for (const auto dtype : {torch::kFloat32, torch::kBFloat16}) {
    const auto fresh = [&] { return torch::full({5, 3}, 0.75, dtype).requires_grad_(); };
    const auto run = [](AdamW& optimizer, torch::Tensor& w, int steps) {
      for (int step = 0; step < steps; ++step) {
        optimizer.zero_grad();
        (w * w * w).sum().backward();
        optimizer.accumulate();
        optimizer.step(1e-2);
      }
    };
    torch::Tensor w = fresh();
    torch::Tensor values;
    {
      AdamW optimizer({{"w", w}}, {});
      run(optimizer, w, 3);
      optimizer.save(folder / "optimizer.safetensors");
      values = w.detach().clone();
      run(optimizer, w, 4);
    }
    torch::Tensor again = values.clone().requires_grad_();
    AdamW optimizer({{"w", again}}, {});
    optimizer.load(folder / "optimizer.safetensors");
    CHECK(optimizer.num_steps() == 3);
    run(optimizer, again, 4);
    CHECK(again.equal(w));

    torch::Tensor other = torch::zeros({5, 2}, dtype).requires_grad_();
    AdamW wrong({{"w", other}, {"v", fresh()}}, {});
    const std::string message = error_of([&] { wrong.load(folder / "optimizer.safetensors"); });
    CHECK(contains(message, "exp_avg.w is F32 [5, 3]; expected F32 [5, 2]"));
    CHECK(contains(message, "missing exp_avg_sq.v"));
    CHECK(wrong.num_steps() == 0);
  }
}

TEST_CASE("adamw: wrong parameters are listed together") {
  const torch::Tensor w = torch::zeros({4, 6});
  const std::string message = error_of([&] {
    AdamW({{"w", w}, {"w", w}, {"t", w.t()}, {"i", torch::zeros({2}, torch::kInt64)}, {"u", {}}},
          {});
  });
  for (const char* part :
       {"w is there twice", "t is not contiguous", "i has the type", "u is undefined"}) {
    CHECK_MESSAGE(contains(message, part), message);
  }
  CHECK_THROWS_AS(AdamW({}, {}), Error);
}

TEST_CASE("loss: the chunked sum and its gradients are those of cross entropy over scored rows") {
  const auto model = tiny_model();
  const Batch batch = batch_of(tiny_dataset(5));
  const torch::Tensor reference = at::cross_entropy_loss(
      model->forward(packed_input(batch)), batch.labels, {}, at::Reduction::Sum, kIgnoreLabel);
  (reference * 0.125).backward();
  std::vector<torch::Tensor> want;
  for (auto& parameter : model->parameters()) {
    want.push_back(parameter.grad().clone());
    parameter.mutable_grad() = torch::Tensor();
  }
  for (const std::int64_t rows : {1, 4, 0}) {
    const torch::Tensor hidden = model->hidden_states(packed_input(batch));
    CHECK(token_loss(*model, hidden, batch.labels, rows) ==
          doctest::Approx(reference.item<double>()).epsilon(1e-5));
    CHECK(token_loss_backward(*model, hidden, batch.labels, 0.125, rows) ==
          doctest::Approx(reference.item<double>()).epsilon(1e-5));
    std::size_t i = 0;
    for (auto& parameter : model->parameters()) {
      CHECK(torch::allclose(parameter.grad(), want[i++], 1e-4, 1e-5));
      parameter.mutable_grad() = torch::Tensor();
    }
  }
}

TEST_CASE("loss: the kernel's sum and gradient are cross entropy's, the gradient in place") {
  for_each_isa([](const std::string&) {
    for (const auto& each :
         {std::pair{torch::kFloat32, 1e-6}, {torch::kBFloat16, 8e-3}, {torch::kHalf, 1e-3}}) {
      const auto& dtype = each.first;
      const auto& tolerance = each.second;
      INFO(c10::toString(dtype));
      at::Generator generator = at::detail::createCPUGenerator(3);
      const torch::Tensor logits = (at::randn({70, 333}, generator) * 4).to(dtype);
      const torch::Tensor labels = at::randint(333, {70}, generator, torch::kInt64);
      const torch::Tensor leaf = logits.to(torch::kFloat64).requires_grad_();
      const torch::Tensor want =
          at::cross_entropy_loss(leaf, labels, /*weight=*/{}, at::Reduction::Sum);
      (want * 0.125).backward();
      torch::Tensor mine = logits.clone();
      CHECK(lorapp::detail::row_loss(mine, labels, std::nullopt).value() ==
            doctest::Approx(want.item<double>()).epsilon(1e-6));
      CHECK(torch::equal(mine, logits));
      CHECK(lorapp::detail::row_loss(mine, labels, 0.125).value() ==
            doctest::Approx(want.item<double>()).epsilon(1e-6));
      const torch::Tensor error = mine.to(torch::kFloat64) - leaf.grad();
      CHECK(error.norm().item<double>() < tolerance * leaf.grad().norm().item<double>());
    }
  });
  // Not for the kernel, and left alone.
  const torch::Tensor wide = torch::zeros({2, 5}, torch::kFloat64);
  CHECK_FALSE(lorapp::detail::row_loss(wide, torch::zeros({2}, torch::kInt64), 1.0).has_value());
  CHECK(error_of([] {
          lorapp::detail::row_loss(torch::zeros({2, 5}), torch::full({2}, 5, torch::kInt64), 1.0);
        }) == "[token_loss] label 5 is not in the vocabulary of 5 tokens");
}

TEST_CASE("loss: a head whose backward pass needs its logits is an error, not a wrong gradient") {
  const torch::Tensor hidden = torch::ones({2, 5}).requires_grad_();
  const torch::Tensor capped = hidden.tanh();  // its gradient is made of its value
  lorapp::detail::row_loss(capped, torch::zeros({2}, torch::kInt64), 1.0);
  CHECK_THROWS_AS(capped.backward(capped.detach()), c10::Error);
}

TEST_CASE("adamw: a step of many elements is AdamWStep's, bit by bit, on every instruction set") {
  for_each_isa([](const std::string&) {
    at::Generator generator = at::detail::createCPUGenerator(4);
    torch::Tensor p = at::randn({40'003}, generator).requires_grad_();
    torch::Tensor want = p.detach().clone();
    AdamW optimizer({{"lora_A.weight", p}}, {.weight_decay = 0.1});
    std::vector<float> m(40'003), v(40'003);
    for (int t = 1; t <= 2; ++t) {
      p.mutable_grad().copy_(at::randn({40'003}, generator));
      const AdamWStep step{
          .decay = static_cast<float>(1 - 1e-2 * 0.1),
          .beta2 = 0.999f,
          .one_minus_beta1 = static_cast<float>(1 - 0.9),
          .one_minus_beta2 = static_cast<float>(1 - 0.999),
          .bias_correction2_sqrt = static_cast<float>(std::sqrt(1 - std::pow(0.999, t))),
          .step_size = static_cast<float>(1e-2 / (1 - std::pow(0.9, t))),
          .eps = 1e-8f,
          .clip = 0.75f};
      float* values = want.mutable_data_ptr<float>();
      const float* gradients = p.grad().const_data_ptr<float>();
      for (std::size_t i = 0; i < m.size(); ++i) {
        step.update(values[i], gradients[i], m[i], v[i]);
      }
      optimizer.step(1e-2, 0.75);
      CHECK(torch::equal(p.detach(), want));
    }
  });
}

TEST_CASE("loss: without scored rows it is zero; shapes that do not fit are an error") {
  const auto model = tiny_model();
  const torch::Tensor hidden = torch::zeros({4, 40});
  CHECK(token_loss(*model, hidden, torch::full({4}, kIgnoreLabel)) == 0);
  CHECK(token_loss_backward(*model, hidden, torch::full({4}, kIgnoreLabel), 1) == 0);
  CHECK_THROWS_AS(token_loss(*model, hidden, torch::zeros({5}, torch::kInt64)), Error);
}

TEST_CASE("training_arguments: one error names every wrong value") {
  TrainingArguments args;
  args.output_dir = "";
  args.per_device_train_batch_size = 0;
  args.gradient_accumulation_steps = -2;
  args.learning_rate = std::numeric_limits<double>::infinity();
  args.num_train_epochs = 0;
  args.logging_steps = 1.5;
  args.save_steps = 0;
  args.warmup_steps = -1;
  args.max_steps = 0;
  args.save_strategy = "never";
  args.adam_beta2 = 1;
  args.optim = "sgd";
  args.weight_decay = -0.1;
  args.gradient_checkpointing_mode = CheckpointingMode::none;
  const std::string message = error_of([&] { args.validate(); });
  for (const char* part :
       {"output_dir is empty", "per_device_train_batch_size is 0",
        "gradient_accumulation_steps is -2", "learning_rate is inf", "num_train_epochs is 0",
        "logging_steps is 1.5", "save_steps is 0", "warmup_steps is -1", "max_steps is 0",
        "save_strategy is \"never\"", "adam_beta2 is 1", "weight_decay is -0.1", "optim is \"sgd\"",
        "gradient_checkpointing_mode is \"none\""}) {
    CHECK_MESSAGE(contains(message, part), part, " in ", message);
  }
  CHECK_NOTHROW(TrainingArguments{}.validate());
  // Numbers of steps that an integer could not hold.
  TrainingArguments endless;
  endless.num_train_epochs = 1e300;
  CHECK(contains(error_of([&] { endless.validate(); }), "num_train_epochs is 1e+300"));
  endless = {};
  endless.max_steps = std::numeric_limits<std::int64_t>::max();
  CHECK(contains(error_of([&] { endless.validate(); }), "max_steps is 9223372036854775807"));
  // Batches so large that counting them would overflow.
  for (std::int64_t TrainingArguments::*field : {&TrainingArguments::per_device_train_batch_size,
                                                 &TrainingArguments::gradient_accumulation_steps,
                                                 &TrainingArguments::per_device_eval_batch_size}) {
    TrainingArguments huge;
    huge.*field = std::numeric_limits<std::int64_t>::max();
    CHECK(contains(error_of([&] { huge.validate(); }), "is 9223372036854775807; expected 1 to"));
  }
}

TEST_CASE("training_arguments: the file reads back equal; unknown keys and types are errors") {
  const TemporaryFolder folder;
  TrainingArguments args;
  args.learning_rate = 1.0 / 3;
  args.seed = ~std::uint64_t{0};
  args.lr_scheduler_type = SchedulerType::polynomial;
  args.lr_scheduler_kwargs = {.num_cycles = 2, .lr_end = 1e-9, .power = 3, .timescale = 17};
  args.logging_strategy = "epoch";
  args.data_seed = 7;
  args.torch_checkpoints = true;
  args.optim = "adamw_8bit";
  args.gradient_checkpointing = true;
  args.gradient_checkpointing_mode = CheckpointingMode::selective;
  CHECK((args.checkpointing_mode() == CheckpointingMode::selective));
  args.save(folder / "training_args.json");
  CHECK(TrainingArguments::from_file(folder / "training_args.json") == args);
  const std::string message = error_of([&] {
    TrainingArguments::from_file(
        folder.write("bad.json",
                     R"({"learning_rat": 1, "seed": -1, "shuffle": 3, "lr_scheduler_type": "step",
            "gradient_checkpointing_mode": "some"})"));
  });
  for (const char* part :
       {"unknown key learning_rat", "seed is -1", "shuffle", "\"step\"", "\"some\""}) {
    CHECK_MESSAGE(contains(message, part), message);
  }
}

TEST_CASE("training_arguments: a schedule's own options are read from JSON, all problems at once") {
  CHECK(parse_scheduler_options("{}") == SchedulerOptions{});
  CHECK(parse_scheduler_options(R"({"num_cycles": 2, "lr_end": 1e-5, "power": 3})") ==
        SchedulerOptions{.num_cycles = 2, .lr_end = 1e-5, .power = 3});
  CHECK(parse_scheduler_options(R"({"timescale": 40})").timescale == 40);
  const std::string message =
      error_of([] { parse_scheduler_options(R"({"num_cycle": 2, "power": "two"})"); });
  CHECK(contains(message, "lr_scheduler_kwargs.num_cycle"));
  CHECK(contains(message, "power is"));
  CHECK(contains(error_of([] { parse_scheduler_options("[2]"); }), "expected an object"));
  CHECK(!error_of([] { parse_scheduler_options("num_cycles=2"); }).empty());
}

TEST_SUITE_END();
