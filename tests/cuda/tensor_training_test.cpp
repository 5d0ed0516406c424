// Layers, the loss, the optimizer, training and generation on a GPU (tensor_gpu.hpp), against the
// same on the CPU and the goldens of transformers and peft.
#include "cuda/tensor_gpu.hpp"
#include "golden/golden_training.hpp"
#include "quant/operands.hpp"
#include "support/error_of.hpp"
#include "support/golden.hpp"
#include "support/temporary_folder.hpp"

#include <lorapp/data/batch.hpp>
#include <lorapp/io/safetensors.hpp>
#include <lorapp/nn/mlp.hpp>
#include <lorapp/nn/rms_norm.hpp>
#include <lorapp/nn/rotary.hpp>
#include <lorapp/peft/dropout.hpp>
#include <lorapp/peft/lora.hpp>
#include <lorapp/peft/peft_model.hpp>
#include <lorapp/quant/int8_weight.hpp>
#include <lorapp/train/adamw.hpp>
#include <lorapp/train/loss.hpp>
#include <lorapp/train/trainer.hpp>

#include <doctest/doctest.h>
#include <torch/types.h>

#include <functional>
#include <string>
#include <vector>

using namespace lorapp;
using namespace lorapp::test;

namespace {

using Inputs = std::vector<torch::Tensor>;
using Operation = std::function<torch::Tensor(const Inputs&)>;

// The result of `f` and the gradients of all its inputs, on the CPU. Nothing else is copied there.
Inputs results(const Operation& f, const Inputs& inputs, const torch::Device& device) {
  Inputs leaves;
  for (const torch::Tensor& each : inputs) {
    leaves.push_back(each.to(device).detach().clone().requires_grad_());
  }
  const std::int64_t copies = host_copies();
  const torch::Tensor y = f(leaves);
  y.backward(random(y.sizes().vec(), 50).to(y.scalar_type()).to(device));
  CHECK(host_copies() == copies);
  Inputs found{y.detach().to(torch::kCPU)};
  for (const torch::Tensor& each : leaves) {
    if (each.grad().defined()) found.push_back(each.grad().to(torch::kCPU));
  }
  return found;
}

void check_same(const Operation& f, const Inputs& inputs, double tolerance) {
  const TensorGpu gpu;
  const Inputs got = results(f, inputs, gpu.device());
  const Inputs want = results(f, inputs, torch::kCPU);
  REQUIRE(got.size() == want.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    CAPTURE(i);
    CHECK(difference(got[i], want[i]) < tolerance);
  }
}

PeftModel golden_model(const torch::Device& device, std::optional<torch::Dtype> quantized_in) {
  LoadOptions options;
  options.dtype = torch::kFloat32;
  options.device = device;
  if (quantized_in) options.quant_config = QuantConfig{.compute_dtype = quantized_in};
  auto base = CausalLM::from_pretrained(golden_path("mistral"), options);
  base->train();
  return PeftModel::from_pretrained(base, golden_path("mistral/adapter"), /*is_trainable=*/true);
}

}  // namespace

TEST_SUITE("training on a GPU") {
  TEST_CASE("norms, rotations, swiglu and dropout, and their gradients, are the CPU's") {
    for (const auto& [dtype, tolerance] : std::vector<std::pair<torch::Dtype, double>>{
             {torch::kFloat32, 1e-5}, {torch::kBFloat16, 1e-2}}) {
      check_same([](const Inputs& in) { return rms_norm(in[0], in[1], 1e-5); },
                 {random({9, 40}, 1, dtype), random({40}, 2, dtype)}, tolerance);
      check_same([](const Inputs& in) { return swiglu(in[0], in[1]); },
                 {random({7, 33}, 3, dtype), random({7, 33}, 4, dtype)}, tolerance);
      check_same([](const Inputs& in) { return seeded_dropout(in[0], 0.3, 5); },
                 {random({11, 13}, 6, dtype)}, 1e-7);
      check_same(
          [](const Inputs& in) {
            RotaryEmbedding embedding(16, 10000.0);
            const auto positions = torch::arange(5, torch::kInt64).to(in[0].device());
            return rotate(in[0], embedding.at(positions, in[0].scalar_type()));
          },
          {random({5, 3, 16}, 7, dtype)}, tolerance);
    }
  }

  TEST_CASE("an adapter's dropout on a GPU is the CPU's, of bfloat16 rounded to that, both ways") {
    const TensorGpu gpu;
    for (const auto dtype : {torch::kBFloat16, torch::kFloat16, torch::kFloat32}) {
      const auto adapter = [&](const torch::Device& device) {
        LoraAdapter made(
            {.in_features = 33, .out_features = 8, .r = 2, .dropout = 0.05, .device = device});
        made.train();
        made.seed_dropout(9);
        return made.low_rank()->mask;
      };
      const torch::Tensor x = random({7, 33}, 1, dtype), dy = random({7, 33}, 2, dtype);
      const auto run = [&](const torch::Device& device) {
        const torch::Tensor input = x.to(device).detach().clone().requires_grad_(),
                            y = adapter(device)(input);
        y.backward(dy.to(device, y.scalar_type()));
        return std::vector<torch::Tensor>{y.detach().to(torch::kCPU), input.grad().to(torch::kCPU)};
      };
      const auto want = run(torch::kCPU), got = run(gpu.device());
      CHECK((want[0].scalar_type() == torch::kFloat32));
      const auto type = dtype == torch::kBFloat16 ? dtype : torch::kFloat32;
      CHECK((got[0].scalar_type() == type));
      CHECK(torch::equal(got[0], want[0].to(type)));
      CHECK(torch::equal(got[1], want[1]));
      CHECK(want[0].eq(0).sum().item<std::int64_t>() > 0);
    }
  }

  TEST_CASE(
      "the loss and its gradient are the CPU's, and a label outside the vocabulary is named") {
    const TensorGpu gpu;
    const torch::Tensor labels = torch::tensor({3, 0, 60}, torch::kInt64);
    for (const auto dtype : {torch::kFloat32, torch::kBFloat16}) {
      const torch::Tensor logits = random({3, 61}, 8, dtype), there = logits.to(gpu.device());
      const torch::Tensor here = logits.clone();
      const double want = lorapp::detail::row_loss(here, labels, 0.5).value();
      const double got = lorapp::detail::row_loss(there, labels.to(gpu.device()), 0.5).value();
      CHECK(std::abs(got - want) < 1e-5 * want);
      CHECK(difference(there.to(torch::kCPU), here) < (dtype == torch::kFloat32 ? 1e-5 : 1e-2));
    }
    const std::string message = error_of([&] {
      lorapp::detail::row_loss(random({1, 5}).to(gpu.device()),
                               torch::full({1}, 5, torch::kInt64).to(gpu.device()), 1.0);
    });
    CHECK(contains(message, "label 5 is not in the vocabulary of 5 tokens"));
    CHECK(contains(error_of([&] {
                     lorapp::detail::row_loss(random({1, 5}).to(gpu.device()),
                                              torch::zeros({1}, torch::kInt64), 1.0);
                   }),
                   "labels are on cpu"));
  }

  TEST_CASE("the optimizer's parameters are the CPU's bits, and its norm is") {
    const TensorGpu gpu;
    for (const auto dtype : {torch::kFloat32, torch::kBFloat16}) {
      torch::Tensor here = random({5, 77}, 1, dtype).requires_grad_(),
                    there = here.detach().to(gpu.device()).requires_grad_();
      AdamW on_cpu({{"a.weight", here}}, {.weight_decay = 0.1}),
          on_gpu({{"a.weight", there}}, {.weight_decay = 0.1});
      for (int step = 0; step < 3; ++step) {
        const torch::Tensor g = random({5, 77}, 10 + static_cast<std::uint64_t>(step), dtype);
        on_cpu.zero_grad();
        on_gpu.zero_grad();
        here.backward(g);
        there.backward(g.to(gpu.device()));
        on_cpu.accumulate();
        on_gpu.accumulate();
        CHECK(on_gpu.grad_norm() == doctest::Approx(on_cpu.grad_norm()).epsilon(1e-12));
        on_cpu.step(1e-2, 0.5);
        on_gpu.step(1e-2, 0.5);
        CHECK(torch::equal(there.detach().to(torch::kCPU), here.detach()));
      }
      const TemporaryFolder folder;
      on_gpu.save(folder / "optimizer.safetensors");
      torch::Tensor again = there.detach().clone().requires_grad_();
      AdamW loaded({{"a.weight", again}}, {.weight_decay = 0.1});
      loaded.load(folder / "optimizer.safetensors");
      CHECK(loaded.num_steps() == 3);
    }
    CHECK(contains(error_of([&] {
                     AdamW({{"a", random({2})}, {"b", random({2}).to(gpu.device())}}, {});
                   }),
                   "expected one device"));
  }

  TEST_CASE(
      "a head in 8 bits has the CPU's products and gradients, and its graph keeps the codes") {
    const TensorGpu gpu;
    const Int8Weight w = quantize_int8(random({300, 40}, 1));
    check_same([&](const Inputs& in) { return linear_int8(in[0], w.to(in[0].device()), in[1]); },
               {random({6, 40}, 2), random({300}, 3)}, 1e-5);
    const Int8Weight there = w.to(gpu.device());
    const torch::Tensor x = random({6, 40}, 2).to(gpu.device()).requires_grad_();
    const std::int64_t before = live_bytes();
    const torch::Tensor y = linear_int8(x, there);
    CHECK(live_bytes() - before <= 6 * 300 * 4 + 4096);  // y
  }

  TEST_CASE("an adapter that brings a head, its own or the base's, is read onto a GPU") {
    const TensorGpu gpu;
    const TemporaryFolder folder;
    const PackedInput input = PackedInput::single({3, 17, 60});
    const torch::NoGradGuard no_grad;
    LoadOptions options;
    options.dtype = torch::kFloat32;
    const auto base = [&](const torch::Device& device) {
      options.device = device;
      return CausalLM::from_pretrained(golden_path("mistral"), options);
    };
    const auto original = base(torch::kCPU);
    const torch::Tensor head = original->named_parameters()["lm_head.weight"];
    PeftModel made(original, {.r = 2, .target_modules = {"q_proj"}});
    made.save_pretrained(folder / "adapter");
    made.eval();
    const auto file = SafetensorsFile::open(folder / "adapter" / "adapter_model.safetensors");
    for (const double factor : {1.0, 1.5}) {
      CAPTURE(factor);
      NamedTensors tensors;
      for (const std::string& name : file.names())
        tensors.emplace_back(name, file.view(name).clone());
      tensors.emplace_back("base_model.model.lm_head.weight", head.detach() * factor);
      write_safetensors(folder / "adapter" / "adapter_model.safetensors", tensors);
      PeftModel read = PeftModel::from_pretrained(base(gpu.device()), folder / "adapter");
      CHECK(relative_error(read.forward(input).to(torch::kCPU), made.forward(input) * factor) <
            1e-5);
      const std::string message = error_of([&] { read.forward(PackedInput::single({3, 96})); });
      CHECK(contains(message, "token id 96"));
    }
  }

  TEST_CASE("logits of a model on a GPU are the CPU's, dense, in 4 bits and with an 8-bit head") {
    const TensorGpu gpu;
    const PackedInput input = PackedInput::pack({{3, 17, 60, 0, 5, 9, 9, 2, 33}, {1, 2, 3}});
    const torch::NoGradGuard no_grad;
    for (const int kind : {0, 1, 2}) {
      CAPTURE(kind);
      LoadOptions options;
      options.dtype = torch::kFloat32;
      options.head_8bit = kind == 2;
      if (kind > 0) {
        options.quant_config =
            QuantConfig{.compute_dtype = torch::kFloat32, .use_double_quant = true};
      }
      const auto here = CausalLM::from_pretrained(golden_path("mistral"), options);
      options.device = gpu.device();
      const auto there = CausalLM::from_pretrained(golden_path("mistral"), options);
      CHECK(relative_error(there->forward(input).to(torch::kCPU), here->forward(input)) < 1e-5);
    }
  }

  TEST_CASE(
      "twenty losses and gradient norms are transformers', in float32, and near them in bfloat16") {
    const TensorGpu gpu;
    const OneThread one_thread;
    const auto golden = golden_json("training.json");
    struct Run {
      const char* name;
      std::optional<torch::Dtype> quantized_in;
      double loss, norm;
    };
    for (const Run& each :
         {Run{"fp32", std::nullopt, 1e-5, 1e-4}, Run{"nf4", torch::kFloat32, 1e-5, 1e-4},
          Run{"nf4", torch::kBFloat16, 1e-2, 0.1}}) {
      CAPTURE(each.name);
      const TemporaryFolder folder;
      PeftModel model = golden_model(gpu.device(), each.quantized_in);
      Trainer trainer(model, training_arguments(golden, (folder / "out").string()),
                      TokenizedDataset(training_examples(golden)));
      trainer.train();
      std::size_t i = 0;
      for (const LogEntry& entry : trainer.state().log_history) {
        if (!entry.contains("loss")) continue;
        CAPTURE(i);
        const auto& want = golden.at(each.name);
        CHECK(relative_error(entry.at("loss"), want.at("loss")[i].get<double>()) <= each.loss);
        CHECK(relative_error(entry.at("grad_norm"), want.at("grad_norm")[i].get<double>()) <=
              each.norm);
        ++i;
      }
      CHECK(i == 20);
      // What was trained on a GPU is read on the CPU.
      model.save_pretrained(folder / "adapter");
      PeftModel read = PeftModel::from_pretrained(
          CausalLM::from_pretrained(golden_path("mistral"), {.dtype = torch::kFloat32}),
          folder / "adapter");
      for (const auto& [key, value] : read.adapter_state()) {
        const auto trained = model.adapter_state();
        for (const auto& [name, tensor] : trained) {
          if (name == key) CHECK(torch::equal(tensor.to(torch::kCPU), value));
        }
      }
    }
  }

  TEST_CASE("checkpointing modes give the same bits on a GPU") {
    const TensorGpu gpu;
    // Few tokens and many, which are other kernels.
    for (const auto& sequences :
         {std::vector<std::vector<std::int64_t>>{{3, 17, 60}},
          std::vector<std::vector<std::int64_t>>{{3, 17, 60, 0, 5, 9, 9, 2, 33}, {1, 2, 3}}}) {
      const PackedInput input = PackedInput::pack(sequences);
      std::vector<Inputs> found;
      for (const CheckpointingMode mode :
           {CheckpointingMode::none, CheckpointingMode::selective, CheckpointingMode::full}) {
        PeftModel model = golden_model(gpu.device(), torch::kBFloat16);
        model.set_gradient_checkpointing(mode);
        const torch::Tensor logits = model.forward(input);
        logits.sum().backward();
        Inputs results{logits.detach().to(torch::kCPU)};
        for (const torch::Tensor& parameter : model.parameters()) {
          if (parameter.grad().defined()) results.push_back(parameter.grad().to(torch::kCPU));
        }
        found.push_back(results);
      }
      REQUIRE(found[0].size() > 1);
      for (std::size_t i = 0; i < found[0].size(); ++i) {
        CHECK(torch::equal(found[0][i], found[1][i]));
        CHECK(torch::equal(found[0][i], found[2][i]));
      }
    }
  }
}
