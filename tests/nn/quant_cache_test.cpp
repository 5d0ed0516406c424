// LoadOptions::quant_cache: models kept in 4 bits between starts.
#include "nn/toy.hpp"

#include <lorapp/nn/quantize_pretrained.hpp>

#include "support/temporary_folder.hpp"

#include <chrono>
#include <filesystem>
#include <string>
#include <vector>

using namespace lorapp;
using namespace lorapp::test;

namespace {

namespace fs = std::filesystem;

torch::Tensor logits_of(CausalLM& model) {
  const torch::NoGradGuard no_grad;
  return model.forward(PackedInput::pack({random_ids(9, 61, 1), random_ids(4, 61, 2)}));
}

/// The quantized folders of a cache.
std::vector<fs::path> kept(const fs::path& cache) {
  std::vector<fs::path> folders;
  if (!fs::exists(cache)) return folders;
  for (const auto& entry : fs::directory_iterator(cache)) {
    if (entry.is_directory()) folders.push_back(entry.path());
  }
  return folders;
}

/// Makes every file of a folder as old as files usually are: the digest of a new one is not kept.
void age(const fs::path& folder) {
  for (const auto& entry : fs::directory_iterator(folder)) {
    fs::last_write_time(entry.path(), entry.last_write_time() - std::chrono::hours(1));
  }
}

const QuantConfig kNf4{.compute_dtype = torch::kFloat32};

}  // namespace

TEST_SUITE("nn") {
  TEST_CASE("quant_cache: both starts give the very model that quantizing gives, under its name") {
    const TemporaryFolder folder;
    for (const torch::Dtype stored : {torch::kFloat32, torch::kBFloat16}) {
      const std::string name = torch::toString(stored);
      auto dense = toy_model();
      dense->to(stored);
      dense->save_pretrained(folder / name);
      for (const QuantConfig& quant : {kNf4, QuantConfig{.compute_dtype = torch::kFloat32,
                                             .use_double_quant = true,
                                             .skip_modules = {"v_proj"}}}) {
        const auto want = CausalLM::from_pretrained(folder / name, {.quant_config = quant});
        const LoadOptions options{.quant_config = quant, .quant_cache = folder / "cache"};
        for (int start = 0; start < 2; ++start) {
          const auto got = CausalLM::from_pretrained(folder / name, options);
          CHECK(torch::equal(logits_of(*got), logits_of(*want)));
          CHECK(got->name_or_path() == want->name_or_path());
          CHECK((got->config().dtype == want->config().dtype));
          CHECK((got->parameters().front().scalar_type() ==
                 want->parameters().front().scalar_type()));
        }
      }
    }
    CHECK(kept(folder / "cache").size() == 4);
  }

  TEST_CASE("quant_cache: 4-bit weights are mapped from the cache, not copied") {
    const TemporaryFolder folder;
    toy_model()->save_pretrained(folder / "m");
    const auto model = CausalLM::from_pretrained(
        folder / "m", {.quant_config = kNf4, .quant_cache = folder / "cache"});
    const std::string maps = read_file("/proc/self/maps");
    CHECK(contains(maps, kept(folder / "cache").at(0).string() + "/model.safetensors"));
    CHECK_FALSE(contains(maps, (folder / "m/model.safetensors").string()));
  }

  TEST_CASE("quant_cache: another option, another config or another weight is another folder") {
    const TemporaryFolder folder;
    toy_model()->save_pretrained(folder / "m");
    age(folder / "m");
    const auto folders_after = [&](const QuantConfig& quant,
                                   std::optional<torch::Dtype> dtype = std::nullopt) {
      CausalLM::from_pretrained(
          folder / "m", {.quant_config = quant, .dtype = dtype, .quant_cache = folder / "cache"});
      return kept(folder / "cache").size();
    };
    CHECK(folders_after(kNf4) == 1);
    CHECK(folders_after({}) == 1);  // compute_dtype is not in the weights
    CHECK(folders_after({.quant_type = QuantType::fp4}) == 2);
    CHECK(folders_after({.blocksize = 128}) == 3);
    CHECK(folders_after({.use_double_quant = true}) == 4);
    CHECK(folders_after({.skip_modules = {"v_proj"}}) == 5);
    CHECK(folders_after(kNf4, torch::kBFloat16) == 6);

    // The same size, other bytes: its time tells.
    std::string weights = read_file(folder / "m/model.safetensors");
    weights[weights.size() - 3] = static_cast<char>(weights[weights.size() - 3] ^ 1);
    folder.write("m/model.safetensors", weights);
    CHECK(folders_after(kNf4) == 7);
    const auto want = CausalLM::from_pretrained(folder / "m", {.quant_config = kNf4});
    const auto got = CausalLM::from_pretrained(
        folder / "m", {.quant_config = kNf4, .quant_cache = folder / "cache"});
    CHECK(torch::equal(logits_of(*got), logits_of(*want)));

    std::string config = read_file(folder / "m/config.json");
    config.insert(config.find('{') + 1, "\"a_key_of_mine\": 1,");
    folder.write("m/config.json", config);
    CHECK(folders_after(kNf4) == 8);
  }

  TEST_CASE(
      "quant_cache: the digests of old files are remembered, and a damaged list is no error") {
    const TemporaryFolder folder;
    toy_model()->save_pretrained(folder / "m");
    age(folder / "m");
    const LoadOptions options{.quant_config = kNf4, .quant_cache = folder / "cache"};
    CausalLM::from_pretrained(folder / "m", options);
    const fs::path list = folder / "cache/digests.json";
    const std::string text = read_file(list);
    CHECK(contains(text, fs::canonical(folder / "m/model.safetensors").string()));
    // It is what counts: with another digest in it, the model is quantized anew.
    std::string other = text;
    const std::size_t digest = other.find("\"sha256\": \"") + 11;
    other.replace(digest, 64, std::string(64, 'a'));
    folder.write("cache/digests.json", other);
    CausalLM::from_pretrained(folder / "m", options);
    CHECK(kept(folder / "cache").size() == 2);
    for (const char* damaged : {"{", "[1]", "{\"/x\": 3}", ""}) {
      folder.write("cache/digests.json", damaged);
      CausalLM::from_pretrained(folder / "m", options);
      CHECK(kept(folder / "cache").size() == 2);
    }
  }

  TEST_CASE("quant_cache: a file that was just written is read again, as its time may not move") {
    const TemporaryFolder folder;
    toy_model()->save_pretrained(folder / "m");
    CausalLM::from_pretrained(folder / "m",
                              {.quant_config = kNf4, .quant_cache = folder / "cache"});
    CHECK_FALSE(fs::exists(folder / "cache/digests.json"));
  }

  TEST_CASE("quant_cache: a damaged copy is an error that names it; removed, it is made again") {
    const TemporaryFolder folder;
    toy_model()->save_pretrained(folder / "m");
    const LoadOptions options{.quant_config = kNf4, .quant_cache = folder / "cache"};
    CausalLM::from_pretrained(folder / "m", options);
    const fs::path copy = kept(folder / "cache").at(0);
    fs::resize_file(copy / "model.safetensors", 100);
    const std::string error = error_of([&] { CausalLM::from_pretrained(folder / "m", options); });
    CHECK(contains(error, copy.string()));
    CHECK(contains(error, "is damaged; remove it"));
    fs::remove_all(copy);
    CHECK(CausalLM::from_pretrained(folder / "m", options) != nullptr);
  }

  TEST_CASE("quant_cache: dense models and folders that are 4-bit already leave nothing in it") {
    const TemporaryFolder folder;
    toy_model()->save_pretrained(folder / "m");
    quantize_pretrained(folder / "m", folder / "q");
    CausalLM::from_pretrained(folder / "m", {.quant_cache = folder / "cache"});
    CausalLM::from_pretrained(folder / "q",
                              {.quant_config = kNf4, .quant_cache = folder / "cache"});
    CHECK_FALSE(fs::exists(folder / "cache"));
  }

  TEST_CASE("quant_cache: a file in its place, or weights that cannot be quantized, are errors") {
    const TemporaryFolder folder;
    folder.write("file", "x");
    auto model = toy_model();
    model->save_pretrained(folder / "m");
    const auto load = [&](const char* name, const char* cache) {
      return error_of([&] {
        CausalLM::from_pretrained(folder / name,
                                  {.quant_config = kNf4, .quant_cache = folder / cache});
      });
    };
    CHECK(contains(load("m", "file"), (folder / "file").string()));
    {
      const torch::NoGradGuard no_grad;
      model->named_parameters()["model.layers.2.mlp.down_proj.weight"][3][5] = NAN;
    }
    model->save_pretrained(folder / "broken");
    CHECK(contains(load("broken", "cache"), "model.layers.2.mlp.down_proj.weight"));
    CHECK(kept(folder / "cache").empty());
  }
}
