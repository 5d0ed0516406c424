// Model folders rewritten in 4 bits.
#include "nn/toy.hpp"

#include <lorapp/io/checkpoint.hpp>
#include <lorapp/nn/quantize_pretrained.hpp>

#include "support/temporary_folder.hpp"

#include <filesystem>
#include <string>

using namespace lorapp;
using namespace lorapp::test;

namespace {

torch::Tensor logits_of(CausalLM& model) {
  const torch::NoGradGuard no_grad;
  return model.forward(PackedInput::pack({random_ids(9, 61, 1), random_ids(4, 61, 2)}));
}

}  // namespace

TEST_SUITE("nn") {
  TEST_CASE("quantize_pretrained: the folder loads as the model that is quantized while it loads") {
    const TemporaryFolder folder;
    for (const torch::Dtype stored : {torch::kFloat32, torch::kBFloat16}) {
      const std::string name = torch::toString(stored);
      auto dense = toy_model();
      dense->to(stored);
      dense->save_pretrained(folder / name);
      for (const QuantConfig& quant :
           {QuantConfig{.compute_dtype = torch::kFloat32},
            QuantConfig{.quant_type = QuantType::fp4,
            .compute_dtype = torch::kFloat32,
            .use_double_quant = true,
            .blocksize = 128},
            QuantConfig{.compute_dtype = torch::kFloat32, .skip_modules = {"v_proj", "mlp"}}}) {
        for (const std::int64_t shard : {std::int64_t{20'000}, kDefaultShardBytes}) {
          const TemporaryFolder out;
          const QuantizedFolder written = quantize_pretrained(
              folder / name, out / "q", {.quant_config = quant, .max_shard_bytes = shard});
          auto want = CausalLM::from_pretrained(folder / name, {.quant_config = quant});
          auto got = CausalLM::from_pretrained(out / "q");
          CHECK(torch::equal(logits_of(*got), logits_of(*want)));
          CHECK(num_parameters(*got) == num_parameters(*dense));
          CHECK(written.quantized_weights == (quant.skip_modules.size() == 2 ? 9 : 21));
          CHECK(std::filesystem::exists(out / "q" / kWeightsIndexName) == (shard == 20'000));
          REQUIRE(got->config().quantization_config);
          CHECK(got->config().quantization_config->quant_type == quant.quant_type);
          CHECK(got->config().quantization_config->use_double_quant == quant.use_double_quant);
          CHECK((got->config().dtype == stored));
        }
      }
    }
  }

  TEST_CASE("quantize_pretrained: dtype is what weights are rounded to before, as in loading") {
    const TemporaryFolder folder;
    toy_model()->save_pretrained(folder / "m");
    const QuantConfig quant{.compute_dtype = torch::kFloat32};
    quantize_pretrained(folder / "m", folder / "q",
                        {.quant_config = quant, .dtype = torch::kBFloat16});
    auto want =
        CausalLM::from_pretrained(folder / "m", {.quant_config = quant, .dtype = torch::kBFloat16});
    auto got = CausalLM::from_pretrained(folder / "q");
    CHECK(torch::equal(logits_of(*got), logits_of(*want)));
    CHECK((got->parameters().front().scalar_type() == torch::kBFloat16));
  }

  TEST_CASE("quantize_pretrained: keeps unknown keys of config.json and copies the side files") {
    const TemporaryFolder folder;
    toy_model()->save_pretrained(folder / "m");
    std::string text = read_file(folder / "m" / "config.json");
    text.insert(text.find('{') + 1, "\"a_key_of_mine\": [1, 2],");
    folder.write("m/config.json", text);
    folder.write("m/tokenizer_config.json", "{ \"odd\":  1}");
    folder.write("m/generation_config.json", "{\"eos_token_id\":7}");
    folder.write("m/notes.txt", "not copied");
    quantize_pretrained(folder / "m", folder / "q");
    CHECK(contains(read_file(folder / "q" / "config.json"), "a_key_of_mine"));
    CHECK(read_file(folder / "q" / "tokenizer_config.json") == "{ \"odd\":  1}");
    CHECK(read_file(folder / "q" / "generation_config.json") == "{\"eos_token_id\":7}");
    CHECK_FALSE(std::filesystem::exists(folder / "q" / "notes.txt"));
  }

  TEST_CASE("quantize_pretrained: an error leaves no folder behind") {
    const TemporaryFolder folder;
    toy_model()->save_pretrained(folder / "m");
    const auto error = [&](const std::filesystem::path& from, const std::filesystem::path& to,
                           const QuantConfig& quant = {}) {
      return error_of([&] { quantize_pretrained(from, to, {.quant_config = quant}); });
    };
    CHECK(contains(error(folder / "m", folder / "m"), "not empty"));
    CHECK(contains(error(folder / "m", folder / "q", {.skip_modules = {"nothing"}}), "nothing"));
    CHECK(contains(error(folder / "m", folder / "q", {.skip_modules = {"layers"}}),
                   "leaves no layer to quantize"));
    CHECK_FALSE(std::filesystem::exists(folder / "q"));
    quantize_pretrained(folder / "m", folder / "q");
    CHECK(contains(error(folder / "q", folder / "again"), "4-bit already"));
    // A weight that is not finite is found late, when shards may have been written.
    auto broken = toy_model();
    {
      const torch::NoGradGuard no_grad;
      broken->named_parameters()["model.layers.2.mlp.down_proj.weight"][3][5] = NAN;
    }
    broken->save_pretrained(folder / "broken");
    CHECK(contains(error(folder / "broken", folder / "b"), "model.layers.2.mlp.down_proj.weight"));
    std::size_t left = 0;
    for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
      left += entry.is_directory() ? 1 : 0;
    }
    CHECK(left == 3);  // m, q, broken
  }
}
