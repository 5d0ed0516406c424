// AdamW with moments in 8 bits against bitsandbytes: its maps, steps from its states, its files.
#include "support/golden.hpp"
#include "support/temporary_folder.hpp"

#include <lorapp/train/adamw.hpp>

#include <doctest/doctest.h>
#include <torch/types.h>

#include <cstring>
#include <string>

using namespace lorapp;
using lorapp::test::GoldenTensors;
using lorapp::test::kGoldenTolerance;

namespace {

double distance(const torch::Tensor& got, const torch::Tensor& want) {
  const torch::Tensor wide = want.to(torch::kFloat64);
  return ((got.to(torch::kFloat64) - wide).norm() / wide.norm()).item<double>();
}

bool same_bits(const DynamicMap& map, const torch::Tensor& want) {
  return want.numel() == 256 &&
         std::memcmp(map.value, want.const_data_ptr<float>(), sizeof map.value) == 0;
}

const char* const kMoments[] = {"exp_avg", "exp_avg_sq"};

}  // namespace

TEST_SUITE("golden AdamW in 8 bits") {
  TEST_CASE("the maps are bitsandbytes' bit for bit") {
    const GoldenTensors golden("adamw_8bit.safetensors");
    CHECK(same_bits(dynamic_map(), golden["signed_map"]));
    CHECK(same_bits(unsigned_dynamic_map(), golden["unsigned_map"]));
  }

  TEST_CASE(
      "each step from bitsandbytes' states gives its parameters and absmax within roundings, and "
      "its codes") {
    const GoldenTensors golden("adamw_8bit.safetensors");
    const test::TemporaryFolder folder;
    torch::Tensor p = golden["parameter.0"].requires_grad_();
    for (int step = 1; step <= 4; ++step) {
      CAPTURE(step);
      const std::string before = "." + std::to_string(step - 1), after = "." + std::to_string(step);
      AdamW optimizer({{"lora_A.weight", p}}, {.weight_decay = 0.1, .state_bits = 8});
      if (step > 1) {
        NamedTensors state;
        for (const std::string moment : kMoments) {
          state.emplace_back(moment + ".lora_A.weight", golden[moment + before]);
          state.emplace_back(moment + "_absmax.lora_A.weight", golden[moment + "_absmax" + before]);
        }
        write_safetensors(folder / "state", state,
                          {{"step", std::to_string(step - 1)}, {"state_bits", "8"}});
        optimizer.load(folder / "state");
      }
      {
        const torch::NoGradGuard no_grad;
        p.copy_(golden["parameter" + before]);
        p.mutable_grad().copy_(golden["gradient" + after]);
      }
      optimizer.step(1e-2, 0.5);
      CHECK(distance(p.detach() - golden["parameter" + before],
                     golden["parameter" + after] - golden["parameter" + before]) <
            kGoldenTolerance);
      optimizer.save(folder / "state");
      const SafetensorsFile file = SafetensorsFile::open(folder / "state");
      for (const std::string moment : kMoments) {
        CHECK(distance(file.view(moment + "_absmax.lora_A.weight"),
                       golden[moment + "_absmax" + after]) < 1e-6);
        CHECK(torch::equal(file.view(moment + ".lora_A.weight"), golden[moment + after]));
      }
    }
  }

  TEST_CASE("a file of bitsandbytes' AdamW is read as it is, with its small parameter in float32") {
    const GoldenTensors golden("adamw_8bit.safetensors");
    const test::TemporaryFolder folder;
    torch::Tensor large = torch::zeros({60, 70}), small = torch::zeros({8});
    AdamW optimizer({{"large.lora_A.weight", large}, {"small.bias", small}},
                    {.weight_decay = 0.1, .state_bits = 8});
    optimizer.load_torch(test::golden_path("adamw_8bit.pt"));
    CHECK(optimizer.num_steps() == 2);
    optimizer.save(folder / "state");
    const SafetensorsFile file = SafetensorsFile::open(folder / "state");
    CHECK(file.names().size() == 6);
    for (const std::string moment : kMoments) {
      const std::string want = "file." + moment;
      CHECK(torch::equal(file.view(moment + ".large.lora_A.weight"), golden[want + ".large"]));
      CHECK(torch::equal(file.view(moment + "_absmax.large.lora_A.weight"),
                         golden[want + "_absmax.large"]));
      CHECK(torch::equal(file.view(moment + ".small.bias"), golden[want + ".small"]));
    }
  }
}
