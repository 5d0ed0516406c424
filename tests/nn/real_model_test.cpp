#include "nn/toy.hpp"

#include <lorapp/data/tokenizer.hpp>
#include <lorapp/io/checkpoint.hpp>

#include "support/shared_data.hpp"
#include "support/temporary_folder.hpp"

#include <set>

using namespace lorapp;
using namespace lorapp::test;

TEST_SUITE("nn") {
  TEST_CASE(
      "real: Mistral-7B's config has 7,241,732,096 parameters, and its tensors are the index's") {
    LORAPP_NEEDS_SHARED_DATA(folder, "models/mistral-7b-v0.1-metadata");
    const ModelConfig config = ModelConfig::from_pretrained(folder);
    CHECK(count_parameters(config) == 7'241'732'096);
    CHECK(config.sliding_window == 4096);
    CHECK((config.dtype == torch::kBFloat16));
    const std::string index = read_file(folder / "model.safetensors.index.json");
    const auto specs = expected_tensors(config);
    CHECK(specs.size() == 291);
    for (const TensorSpec& spec : specs) {
      CHECK(contains(index, "\"" + spec.name + "\""));
    }
  }

  TEST_CASE("real: stories260K predicts its author's text with a mean loss of 0.4734177") {
    LORAPP_NEEDS_SHARED_DATA(folder, "models/stories260K");
    auto model = CausalLM::from_pretrained(folder);
    CHECK(model->name_or_path() == folder.string());
    CHECK(num_parameters(*model) == count_parameters(model->config()));
    const Tokenizer tokenizer = Tokenizer::from_pretrained(folder);
    const auto ids = tokenizer.encode(read_file(folder / "greedy_200_expected.txt"));
    CHECK(ids.front() == 1);
    const torch::NoGradGuard no_grad;
    const torch::Tensor logits = model->forward(PackedInput::single(ids));
    const auto count = static_cast<std::int64_t>(ids.size());
    const torch::Tensor targets = torch::tensor(ids).slice(0, 1);
    const double loss =
        torch::cross_entropy_loss(logits.slice(0, 0, count - 1), targets).item<double>();
    CHECK(loss == doctest::Approx(0.4734177).epsilon(2e-6));
    // The text is the model's greedy continuation of bos.
    const torch::Tensor best = logits.slice(0, 0, count - 1).argmax(-1);
    CHECK((best == targets).to(torch::kFloat32).mean().item<double>() == 1.0);
  }
}
