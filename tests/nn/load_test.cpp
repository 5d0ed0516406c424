#include "nn/toy.hpp"

#include <lorapp/io/checkpoint.hpp>
#include <lorapp/io/safetensors.hpp>

#include "support/temporary_folder.hpp"

#include <functional>
#include <string>

using namespace lorapp;
using namespace lorapp::test;

namespace {

PackedInput some_input() { return PackedInput::pack({random_ids(9, 61, 1), random_ids(4, 61, 2)}); }

torch::Tensor logits_of(CausalLM& model) {
  const torch::NoGradGuard no_grad;
  return model.forward(some_input());
}

// The tensors of a saved folder, for rewriting them.
NamedTensors tensors_of(const std::filesystem::path& folder) {
  const Checkpoint checkpoint = Checkpoint::open(folder);
  NamedTensors tensors;
  for (const std::string& name : checkpoint.names()) {
    tensors.emplace_back(name, checkpoint.view(name).clone());
  }
  return tensors;
}

void rewrite(const std::filesystem::path& folder,
             const std::function<void(NamedTensors&)>& change) {
  NamedTensors tensors = tensors_of(folder);
  change(tensors);
  write_safetensors(folder / kWeightsName, tensors);
}

}  // namespace

TEST_SUITE("nn") {
  TEST_CASE("save_pretrained: from_pretrained reads back the same model, tied or not") {
    for (const bool tied : {false, true}) {
      ModelConfig config = toy_config();
      config.tie_word_embeddings = tied;
      config.eos_token_id = {2, 5};
      auto model = toy_model(config);
      const TemporaryFolder folder;
      model->save_pretrained(folder / "model");
      auto loaded = CausalLM::from_pretrained(folder / "model");
      CHECK(torch::equal(logits_of(*loaded), logits_of(*model)));
      CHECK(loaded->config().eos_token_id == config.eos_token_id);
      CHECK(loaded->parameters().front().requires_grad());
      CHECK(Checkpoint::open(folder / "model").contains("lm_head.weight") == !tied);
      CHECK(std::filesystem::exists(folder / "model" / "generation_config.json"));
      // A second save, beside other files, gives the same bytes.
      folder.write("again/tokenizer.model", "x");
      loaded->save_pretrained(folder / "again");
      for (const char* name : {"config.json", "generation_config.json", "model.safetensors"}) {
        CHECK(read_file(folder / "again" / name) == read_file(folder / "model" / name));
      }
    }
  }

  TEST_CASE(
      "save_pretrained: writes the dtype the weights have, and keeps generation_config.json") {
    auto model = toy_model();
    model->to(torch::kBFloat16);
    const TemporaryFolder folder;
    model->save_pretrained(folder / "a");
    CHECK((Checkpoint::open(folder / "a").info("model.norm.weight").dtype == "BF16"));
    CHECK((ModelConfig::from_pretrained(folder / "a").dtype == torch::kBFloat16));
    const std::string generation = "{\"temperature\": 0.5, \"eos_token_id\": 7}\n";
    folder.write("a/generation_config.json", generation);
    auto loaded = CausalLM::from_pretrained(folder / "a");
    CHECK(loaded->config().eos_token_id == std::vector<std::int64_t>{7});
    loaded->save_pretrained(folder / "b");
    CHECK(read_file(folder / "b" / "generation_config.json") == generation);
    folder.write("file", "x");
    CHECK(contains(error_of([&] { loaded->save_pretrained(folder / "file"); }), "folder"));
  }

  TEST_CASE("from_pretrained: dtype is the config's, or the one asked for") {
    const TemporaryFolder folder;
    toy_model()->save_pretrained(folder / "m");
    const auto dtype_of = [&](const LoadOptions& options) {
      return CausalLM::from_pretrained(folder / "m", options)->parameters().back().scalar_type();
    };
    CHECK((dtype_of({}) == torch::kFloat32));
    CHECK((dtype_of({.dtype = torch::kBFloat16}) == torch::kBFloat16));
    CHECK((dtype_of({.dtype = torch::kFloat16}) == torch::kFloat16));
    CHECK(contains(error_of([&] { dtype_of({.dtype = torch::kInt32}); }), "dtype"));
    // Without a dtype in config.json, each tensor keeps its own.
    std::string text = read_file(folder / "m" / "config.json");
    text.erase(text.find("\"torch_dtype\""), std::string("\"torch_dtype\": \"float32\",").size());
    folder.write("m/config.json", text);
    rewrite(folder / "m", [](NamedTensors& tensors) {
      for (auto& [name, tensor] : tensors) tensor = tensor.to(torch::kFloat16);
    });
    CHECK((dtype_of({}) == torch::kFloat16));
  }

  TEST_CASE(
      "from_pretrained: 4-bit weights are those of quantizing the dense ones, in every dtype") {
    const TemporaryFolder folder;
    auto dense = toy_model();
    for (const torch::Dtype stored : {torch::kFloat32, torch::kBFloat16}) {
      dense->to(stored);
      dense->save_pretrained(folder / torch::toString(stored));
      for (const torch::Dtype dtype : {torch::kFloat32, torch::kBFloat16, torch::kFloat16}) {
        const QuantConfig quant{.compute_dtype = torch::kFloat32, .use_double_quant = true};
        auto model = CausalLM::from_pretrained(folder / torch::toString(stored),
                                               {.quant_config = quant, .dtype = dtype});
        std::int64_t count = 0;
        for_each_linear(*model, [&](const std::string& path, LinearImpl& linear) {
          CAPTURE(path);
          const torch::Tensor weight =
              dense->named_parameters()[path + ".weight"].detach().to(dtype);
          if (path == "lm_head") {
            CHECK_FALSE(linear.is_quantized());
            CHECK(torch::equal(linear.dense_weight(), weight));
            return;
          }
          ++count;
          REQUIRE(linear.is_quantized());
          const QuantizedTensor want = quantize_4bit(weight, quant);
          CHECK((linear.quantized().dtype() == dtype));
          CHECK(torch::equal(linear.quantized().codes(), want.codes()));
          CHECK(torch::equal(linear.quantized().absmax(), want.absmax()));
          CHECK(torch::equal(linear.dense_weight(), dequantize_4bit(want)));
        });
        CHECK(count == 21);
        CHECK(num_parameters(*model) == count_parameters(model->config()));
        CHECK((logits_of(*model).scalar_type() == dtype));
        CHECK(contains(error_of([&] { model->save_pretrained(folder / "no"); }), "4-bit"));
        CHECK_FALSE(std::filesystem::exists(folder / "no"));
      }
    }
  }

  TEST_CASE("from_pretrained: skip_modules stay dense, and one that matches nothing is an error") {
    const TemporaryFolder folder;
    toy_model()->save_pretrained(folder / "m");
    const auto quantized_paths = [&](std::vector<std::string> skip) {
      auto model = CausalLM::from_pretrained(
          folder / "m", {.quant_config = QuantConfig{.skip_modules = std::move(skip)}});
      std::string paths;
      for_each_linear(*model, [&](const std::string& path, LinearImpl& linear) {
        if (linear.is_quantized()) paths += path + " ";
      });
      return paths;
    };
    const std::string without_mlp = quantized_paths({"mlp", "model.layers.2"});
    CHECK_FALSE(contains(without_mlp, "mlp"));
    CHECK(contains(without_mlp, "model.layers.1.self_attn.q_proj"));
    CHECK_FALSE(contains(without_mlp, "model.layers.2."));
    const std::string without_down = quantized_paths({"down_proj", "layers.1.self_attn.q_proj"});
    CHECK_FALSE(contains(without_down, "down_proj"));
    CHECK_FALSE(contains(without_down, "layers.1.self_attn.q_proj"));
    CHECK(contains(without_down, "layers.0.self_attn.q_proj"));
    CHECK_FALSE(contains(without_down, "lm_head"));  // the head is never quantized
    const std::string message = error_of([&] { quantized_paths({"lm_head", "q_prj", ""}); });
    CHECK(contains(message, "q_prj"));
    CHECK(contains(message, "2 problems"));
  }

  TEST_CASE(
      "from_pretrained: names without the prefix, old rotary buffers and a tied head's copy") {
    const TemporaryFolder folder;
    ModelConfig config = toy_config();
    config.tie_word_embeddings = true;
    auto model = toy_model(config);
    model->save_pretrained(folder / "m");
    rewrite(folder / "m", [](NamedTensors& tensors) {
      for (auto& [name, tensor] : tensors) name.erase(0, std::string("model.").size());
      tensors.emplace_back("layers.0.self_attn.rotary_emb.inv_freq", torch::zeros({5}));
      tensors.emplace_back("rotary_emb.inv_freq", torch::zeros({5}));
    });
    CHECK(torch::equal(logits_of(*CausalLM::from_pretrained(folder / "m")), logits_of(*model)));
    rewrite(folder / "m", [&](NamedTensors& tensors) {
      tensors.emplace_back("lm_head.weight", model->head()->dense_weight().detach());
    });
    const auto loaded = CausalLM::from_pretrained(folder / "m");
    CHECK(torch::equal(logits_of(*loaded), logits_of(*model)));
    CHECK(loaded->config().tie_word_embeddings);
  }

  TEST_CASE("from_pretrained: a head that differs from the embedding is not tied to it") {
    const TemporaryFolder folder;
    ModelConfig config = toy_config();
    const auto model = toy_model(config);
    model->save_pretrained(folder / "m");
    config.tie_word_embeddings = true;
    config.save(folder / "m" / "config.json");
    const auto loaded = CausalLM::from_pretrained(folder / "m");
    CHECK(torch::equal(logits_of(*loaded), logits_of(*model)));
    CHECK_FALSE(loaded->config().tie_word_embeddings);
    rewrite(folder / "m", [](NamedTensors& tensors) {
      for (auto& [name, tensor] : tensors) {
        if (name == "lm_head.weight") tensor = torch::zeros({60, 36});
      }
    });
    CHECK(contains(error_of([&] { CausalLM::from_pretrained(folder / "m"); }),
                   "lm_head.weight has the shape [60, 36]"));
  }

  TEST_CASE("from_pretrained: a decoder saved without its head needs a tied one") {
    const TemporaryFolder folder;
    for (const bool tied : {true, false}) {
      ModelConfig config = toy_config();
      config.tie_word_embeddings = tied;
      const auto model = toy_model(config);
      const std::filesystem::path path = folder / (tied ? "tied" : "untied");
      model->save_pretrained(path);
      rewrite(path, [](NamedTensors& tensors) {
        std::erase_if(tensors, [](const auto& item) { return item.first == "lm_head.weight"; });
        for (auto& [name, tensor] : tensors) name.erase(0, std::string("model.").size());
      });
      std::string text = read_file(path / "config.json");
      text.replace(text.find("MistralForCausalLM"), std::string("MistralForCausalLM").size(),
                   "MistralModel");
      folder.write(std::string(tied ? "tied" : "untied") + "/config.json", text);
      if (tied) {
        const auto loaded = CausalLM::from_pretrained(path);
        CHECK(torch::equal(logits_of(*loaded), logits_of(*model)));
        CHECK(loaded->config().architectures == std::vector<std::string>{"MistralForCausalLM"});
      } else {
        CHECK(contains(error_of([&] { CausalLM::from_pretrained(path); }),
                       "lm_head.weight is missing"));
      }
    }
  }

  TEST_CASE("from_pretrained: float64 files are read as float32") {
    const TemporaryFolder folder;
    const auto model = toy_model();
    model->save_pretrained(folder / "m");
    rewrite(folder / "m", [](NamedTensors& tensors) {
      for (auto& [name, tensor] : tensors) tensor = tensor.to(torch::kFloat64);
    });
    std::string text = read_file(folder / "m" / "config.json");
    text.replace(text.find("\"float32\""), 9, "\"float64\"");
    folder.write("m/config.json", text);
    CHECK(torch::equal(logits_of(*CausalLM::from_pretrained(folder / "m")), logits_of(*model)));
  }

  TEST_CASE("from_pretrained: biases are read") {
    ModelConfig config = toy_config();
    config.model_type = "llama";
    config.architectures = {"LlamaForCausalLM"};
    config.hidden_size = 60;
    config.head_dim.reset();
    config.attention_bias = true;
    config.mlp_bias = true;
    auto model = toy_model(config);
    {
      const torch::NoGradGuard no_grad;
      std::uint64_t seed = 0;
      for (auto& item : model->named_parameters()) {
        if (item.key().ends_with(".bias")) {
          item.value().copy_(random_tensor(item.value().sizes(), ++seed));
        }
      }
    }
    const TemporaryFolder folder;
    model->save_pretrained(folder / "m");
    CHECK(torch::equal(logits_of(*CausalLM::from_pretrained(folder / "m")), logits_of(*model)));
    auto quantized = CausalLM::from_pretrained(
        folder / "m", {.quant_config = QuantConfig{.compute_dtype = torch::kFloat32}});
    for_each_linear(*model, [](const std::string& path, LinearImpl& linear) {
      if (path != "lm_head") {
        linear.set_dense(dequantize_4bit(quantize_4bit(linear.dense_weight().detach())));
      }
    });
    CHECK(distance(logits_of(*quantized), logits_of(*model)) < 1e-5);
  }

  TEST_CASE("from_pretrained: reads shards behind an index") {
    const TemporaryFolder folder;
    auto model = toy_model();
    model->save_pretrained(folder / "m");
    NamedTensors all = tensors_of(folder / "m");
    NamedTensors shards[2];
    std::string map;
    const char* names[2] = {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"};
    for (std::size_t i = 0; i < all.size(); ++i) {
      shards[i % 2].push_back(all[i]);
      map += std::string(i == 0 ? "" : ",") + "\"" + all[i].first + "\": \"" + names[i % 2] + "\"";
    }
    std::filesystem::remove(folder / "m" / kWeightsName);
    for (int i = 0; i < 2; ++i) write_safetensors(folder / "m" / names[i], shards[i]);
    folder.write("m/model.safetensors.index.json",
                 "{\"metadata\": {}, \"weight_map\": {" + map + "}}");
    CHECK(torch::equal(logits_of(*CausalLM::from_pretrained(folder / "m")), logits_of(*model)));
  }

  TEST_CASE("from_pretrained: a folder that bitsandbytes quantized is read as it is") {
    for (const bool nested : {false, true}) {
      const TemporaryFolder folder;
      auto model = toy_model();
      const QuantConfig quant{.use_double_quant = nested};
      model->save_pretrained(folder / "m");
      rewrite(folder / "m", [&](NamedTensors& tensors) {
        NamedTensors rewritten;
        for (auto& [name, tensor] : tensors) {
          if (!contains(name, "_proj.weight")) {
            rewritten.emplace_back(name, tensor);
            continue;
          }
          const QuantizedTensor q = quantize_4bit(tensor, quant);
          std::string state =
              "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"float32\", "
              "\"shape\": [" +
              std::to_string(q.size(0)) + ", " + std::to_string(q.size(1)) + "]";
          rewritten.emplace_back(name, q.codes().view({-1, 1}));
          rewritten.emplace_back(name + ".absmax", q.absmax());
          rewritten.emplace_back(name + ".quant_map", q.code());
          if (nested) {
            rewritten.emplace_back(name + ".nested_absmax", q.nested_absmax());
            rewritten.emplace_back(name + ".nested_quant_map", q.nested_code());
            char offset[32];
            std::snprintf(offset, sizeof offset, "%.17g", q.nested_offset());
            state +=
                ", \"nested_blocksize\": 256, \"nested_dtype\": \"float32\", "
                "\"nested_offset\": " +
                std::string(offset);
          }
          state += "}";
          rewritten.emplace_back(
              name + ".quant_state.bitsandbytes__nf4",
              torch::tensor(std::vector<std::uint8_t>(state.begin(), state.end()), torch::kUInt8));
        }
        tensors = rewritten;
      });
      std::string text = read_file(folder / "m" / "config.json");
      text.insert(text.find('{') + 1,
                  R"("quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": true,
                     "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "bfloat16"},)");
      folder.write("m/config.json", text);
      const LoadOptions options{.quant_config = QuantConfig{.compute_dtype = torch::kFloat32}};
      auto loaded = CausalLM::from_pretrained(folder / "m", options);
      for_each_linear(*model, [&](const std::string& path, LinearImpl& linear) {
        if (path != "lm_head")
          linear.set_quantized(quantize_4bit(linear.dense_weight(), quant), torch::kFloat32);
      });
      CHECK(torch::equal(logits_of(*loaded), logits_of(*model)));
      // Without options the products are computed in the dtype that config.json names.
      for_each_linear(*model, [&](const std::string& path, LinearImpl& linear) {
        if (path != "lm_head") linear.set_quantized(linear.quantized(), torch::kBFloat16);
      });
      const torch::Tensor as_configured = logits_of(*CausalLM::from_pretrained(folder / "m"));
      CHECK(torch::equal(as_configured, logits_of(*model)));
      CHECK_FALSE(torch::equal(as_configured, logits_of(*loaded)));
      // A part that is missing is named.
      rewrite(folder / "m", [](NamedTensors& tensors) {
        std::erase_if(tensors, [](const auto& item) {
          return item.first == "model.layers.1.mlp.up_proj.weight.absmax";
        });
      });
      CHECK(contains(error_of([&] { CausalLM::from_pretrained(folder / "m", options); }),
                     "model.layers.1.mlp.up_proj.weight.absmax is missing"));
    }
  }
}
