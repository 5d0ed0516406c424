// Training with AdamW's moments in 8 bits: which have them, files, and where runs arrive.
#include "io/torch_file.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/rows_args.hpp"
#include "run.hpp"
#include "support/for_each_isa.hpp"

#include <doctest/doctest.h>
#include <torch/types.h>

#include <cmath>

using namespace lorapp;
using namespace lorapp::test;

namespace {

constexpr AdamW::Options kOptions{.weight_decay = 0.1, .state_bits = 8};

// Adapters of 128 rows over 40 and 72 columns: of both sizes of tensors.
PeftModel wide_peft() {
  return PeftModel(tiny_model(), LoraConfig{.r = 128, .lora_alpha = 128, .lora_dropout = 0.1});
}

TrainingArguments args_of(const std::filesystem::path& output_dir, const char* optim) {
  TrainingArguments args = tiny_args(output_dir);
  args.learning_rate = 1e-3;
  args.num_train_epochs = 20;
  args.save_steps = 20;
  args.optim = optim;
  return args;
}

double loss_of(CausalLM& model) {
  const TokenizedDataset data = tiny_dataset(22);
  return evaluate_loss(model, data, 22).loss;
}

void pretend_steps(AdamW& optimizer, const torch::Tensor& p, int first, int last) {
  for (int step = first; step < last; ++step) {
    at::Generator generator =
        at::detail::createCPUGenerator(static_cast<std::uint64_t>(100 + step));
    p.mutable_grad().copy_(at::randn(p.sizes(), generator));
    optimizer.step(1e-2, 0.75);
  }
}

}  // namespace

TEST_SUITE_BEGIN("train");

TEST_CASE("adamw_8bit: steps of many elements are the kernel's, on every instruction set") {
  constexpr std::int64_t kCount = 400'003;  // several threads' worth
  const std::int64_t blocks = (kCount + kMomentBlock - 1) / kMomentBlock;
  for_each_isa([&](const std::string&) {
    at::Generator generator = at::detail::createCPUGenerator(4);
    torch::Tensor p = at::randn({kCount}, generator).requires_grad_();
    const torch::Tensor want = p.detach().clone();
    AdamW optimizer({{"lora_A.weight", p}}, kOptions);
    const torch::Tensor m = torch::full({kCount}, kZeroOfFirstMoment, torch::kUInt8);
    const torch::Tensor v = torch::full({kCount}, kZeroOfSecondMoment, torch::kUInt8);
    const torch::Tensor m_absmax = torch::zeros({blocks}), v_absmax = torch::zeros({blocks});
    for (int t = 1; t <= 2; ++t) {
      p.mutable_grad().copy_(at::randn({kCount}, generator));
      kernels::find_table("scalar")->adamw_8bit(
          {.p = want.mutable_data_ptr<float>(),
           .g = p.grad().const_data_ptr<float>(),
           .m = m.mutable_data_ptr<std::uint8_t>(),
           .v = v.mutable_data_ptr<std::uint8_t>(),
           .m_absmax = m_absmax.mutable_data_ptr<float>(),
           .v_absmax = v_absmax.mutable_data_ptr<float>(),
           .n = kCount,
           .step = {.decay = static_cast<float>(1 - 1e-2 * 0.1),
                    .beta2 = 0.999f,
                    .one_minus_beta1 = static_cast<float>(1 - 0.9),
                    .one_minus_beta2 = static_cast<float>(1 - 0.999),
                    .bias_correction2_sqrt = static_cast<float>(std::sqrt(1 - std::pow(0.999, t))),
                    .step_size = static_cast<float>(1e-2 / (1 - std::pow(0.9, t))),
                    .eps = 1e-8f,
                    .clip = 0.75f}});
      optimizer.step(1e-2, 0.75);
      CHECK(torch::equal(p.detach(), want));
    }
  });
}

TEST_CASE("adamw_8bit: small tensors and embeddings keep 32 bits; a wrong number is an Error") {
  const TemporaryFolder folder;
  AdamW optimizer({{"a.lora_A.weight", torch::zeros({64, 64})},
                   {"b.lora_A.weight", torch::zeros({63, 65})},
                   {"model.embed_tokens.weight", torch::zeros({80, 64})},
                   {"half.weight", torch::zeros({80, 64}, torch::kBFloat16)}},
                  kOptions);
  optimizer.save(folder / "state");
  const SafetensorsFile file = SafetensorsFile::open(folder / "state");
  CHECK(file.info("exp_avg.a.lora_A.weight").dtype == "U8");
  CHECK(file.info("exp_avg_absmax.a.lora_A.weight").shape == std::vector<std::int64_t>{16});
  CHECK(file.info("exp_avg_sq.b.lora_A.weight").dtype == "F32");
  CHECK(file.info("exp_avg_sq.model.embed_tokens.weight").dtype == "F32");
  CHECK(file.info("exp_avg_sq.half.weight").dtype == "U8");
  CHECK(file.info("master.half.weight").dtype == "F32");
  CHECK(file.names().size() == 13);
  CHECK(contains(error_of([] {
                   AdamW({{"w", torch::zeros({4})}}, {.state_bits = 16});
                 }),
                 "state_bits is 16; expected 32 or 8"));
}

TEST_CASE("adamw_8bit: a saved state continues bit for bit; one of the other kind is refused") {
  const TemporaryFolder folder;
  const auto fresh = [] { return torch::full({70, 70}, 0.75).requires_grad_(); };
  torch::Tensor whole = fresh(), values;
  {
    AdamW optimizer({{"layer.lora_A.weight", whole}}, kOptions);
    pretend_steps(optimizer, whole, 0, 3);
    optimizer.save(folder / "state");
    optimizer.save_torch(folder / "optimizer.pt", 1e-2, 1e-2);
    values = whole.detach().clone();
    pretend_steps(optimizer, whole, 3, 6);
  }
  for (const bool torch_file : {false, true}) {
    torch::Tensor again = values.clone().requires_grad_();
    AdamW optimizer({{"layer.lora_A.weight", again}}, kOptions);
    if (torch_file) {
      optimizer.load_torch(folder / "optimizer.pt");
    } else {
      optimizer.load(folder / "state");
    }
    CHECK(optimizer.num_steps() == 3);
    pretend_steps(optimizer, again, 3, 6);
    CHECK(again.equal(whole));
  }

  torch::Tensor wide = fresh();
  AdamW of_32({{"layer.lora_A.weight", wide}}, {.weight_decay = 0.1});
  CHECK(contains(error_of([&] { of_32.load(folder / "state"); }),
                 "keeps moments in 8 bits and this run in 32; continue with the optim that"));
  CHECK(contains(error_of([&] { of_32.load_torch(folder / "optimizer.pt"); }),
                 "written by bitsandbytes' optimizer; expected torch's AdamW"));
  CHECK(of_32.num_steps() == 0);
  of_32.step(1e-2);
  of_32.save(folder / "wide");
  of_32.save_torch(folder / "wide.pt", 1e-2, 1e-2);
  torch::Tensor narrow = fresh();
  AdamW of_8({{"layer.lora_A.weight", narrow}}, kOptions);
  CHECK(contains(error_of([&] { of_8.load(folder / "wide"); }),
                 "keeps moments in 32 bits and this run in 8"));
  CHECK(contains(error_of([&] { of_8.load_torch(folder / "wide.pt"); }),
                 "written by torch's optimizer; expected bitsandbytes'"));
  CHECK(of_8.num_steps() == 0);

  torch::Tensor other = torch::zeros({64, 65}).requires_grad_();
  AdamW misfit({{"layer.lora_A.weight", other}}, kOptions);
  const std::string message = error_of([&] { misfit.load_torch(folder / "optimizer.pt"); });
  CHECK(contains(message, "state1 of layer.lora_A.weight is a tensor [70, 70] of Byte; expected"));
  CHECK(contains(message, "absmax2 of layer.lora_A.weight is a tensor [20] of Float; expected"));
}

TEST_CASE("adamw_8bit: a run ends within a hundredth of the loss that float32 moments reach") {
  const TemporaryFolder folder;
  PeftModel fresh = wide_peft();
  const double start = loss_of(fresh);
  double loss[2];
  for (const bool narrow : {false, true}) {
    PeftModel model = wide_peft();
    Trainer trainer(model,
                    args_of(folder / (narrow ? "8" : "32"), narrow ? "adamw_8bit" : "adamw_torch"),
                    tiny_dataset(22));
    trainer.train();
    loss[narrow ? 1 : 0] = loss_of(model);
  }
  MESSAGE("loss ", start, " before, ", loss[0], " with 32 bits, ", loss[1], " with 8");
  CHECK(loss[0] < 0.7 * start);
  CHECK(std::abs(loss[1] - loss[0]) < 0.01 * loss[0]);
  const auto size = [&](const char* run) {
    return std::filesystem::file_size(folder / run / "checkpoint-60/optimizer.safetensors");
  };
  CHECK(size("8") < size("32"));
}

TEST_CASE("adamw_8bit: a run cut and continued gives the bits of one that was not") {
  const TemporaryFolder folder;
  PeftModel whole = wide_peft();
  TrainingArguments args = args_of(folder / "whole", "adamw_bnb_8bit");
  args.num_train_epochs = 3;
  args.torch_checkpoints = true;
  Trainer(whole, args, tiny_dataset(22)).train();
  args.output_dir = (folder / "cut").string();
  {
    PeftModel model = wide_peft();
    Trainer trainer(model, args, tiny_dataset(22));
    trainer.add_callback(stop_after(4));
    trainer.train();
  }
  {
    PeftModel model = wide_peft();
    TrainingArguments other = args;
    other.optim = "adamw_torch";
    Trainer trainer(model, other, tiny_dataset(22));
    CHECK(contains(error_of([&] { trainer.train("last"); }), "keeps moments in 8 bits"));
  }
  PeftModel model = wide_peft();
  Trainer(model, args, tiny_dataset(22)).train("last");
  CHECK(same_bits(values_of(model), values_of(whole)));
  for (const char* file : {"optimizer.safetensors", "optimizer.pt"}) {
    CHECK(read_file(folder / "cut/checkpoint-9" / file) ==
          read_file(folder / "whole/checkpoint-9" / file));
  }
}

TEST_SUITE_END();
