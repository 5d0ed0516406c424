// The fields in which the model families differ.
#include "nn/toy.hpp"

#include <lorapp/nn/model_config.hpp>
#include <lorapp/nn/rotary.hpp>

#include "support/temporary_folder.hpp"

#include <string>
#include <vector>

using namespace lorapp;
using namespace lorapp::test;

namespace {

ModelConfig parse(const std::string& text) {
  const TemporaryFolder folder;
  return ModelConfig::from_file(folder.write("config.json", text));
}

ModelConfig saved_and_read(const ModelConfig& config) {
  const TemporaryFolder folder;
  config.save(folder / "config.json");
  return ModelConfig::from_file(folder / "config.json");
}

// A small config of a family, and `more` fields.
std::string small(const std::string& type, const std::string& more) {
  return R"({"model_type": ")" + type + R"(", "vocab_size": 61, "hidden_size": 48,
    "intermediate_size": 53, "num_hidden_layers": 4, "num_attention_heads": 6,
    "num_key_value_heads": 2)" +
         (more.empty() ? "" : ", " + more) + "}";
}

std::string problem(const std::string& type, const std::string& more) {
  return error_of([&] { parse(small(type, more)); });
}

std::string windows(const ModelConfig& config) {
  std::string text;
  for (std::int64_t i = 0; i < config.num_hidden_layers; ++i) {
    const auto window = config.window(static_cast<std::size_t>(i));
    text += (window ? std::to_string(*window) : "-") + " ";
  }
  return text;
}

// A published model's sizes: hidden, ffn, layers, heads, key-value heads, vocabulary.
std::string published(const std::string& type,
                      const std::vector<std::int64_t>& sizes,
                      const std::string& more) {
  return R"({"model_type": ")" + type + R"(", "hidden_size": )" + std::to_string(sizes[0]) +
         R"(, "intermediate_size": )" + std::to_string(sizes[1]) + R"(, "num_hidden_layers": )" +
         std::to_string(sizes[2]) + R"(, "num_attention_heads": )" + std::to_string(sizes[3]) +
         R"(, "num_key_value_heads": )" + std::to_string(sizes[4]) + R"(, "vocab_size": )" +
         std::to_string(sizes[5]) + more + "}";
}

const std::string kTied = R"(, "tie_word_embeddings": true)";

}  // namespace

TEST_SUITE("nn") {
  TEST_CASE(
      "families: published models have as many tensors and parameters as they are known for") {
    struct Model {
      std::string config;
      std::size_t tensors;
      std::int64_t parameters;
    };
    const std::string head_64 = R"(, "head_dim": 64)";
    const std::string head_128 = R"(, "head_dim": 128)";
    for (const Model& model : {
             // Llama-2-7b, Llama-3.1-8B, Llama-3.2-1B
             Model{published("llama", {4096, 11008, 32, 32, 32, 32000}, ""), 291, 6738415616},
             Model{published("llama", {4096, 14336, 32, 32, 8, 128256}, ""), 291, 8030261248},
             Model{published("llama", {2048, 8192, 16, 32, 8, 128256}, kTied + head_64), 146,
                   1235814400},
             // Mistral-7B-v0.1, -v0.3
             Model{published("mistral", {4096, 14336, 32, 32, 8, 32000}, ""), 291, 7241732096},
             Model{published("mistral", {4096, 14336, 32, 32, 8, 32768}, ""), 291, 7248023552},
             // Qwen2.5-0.5B, Qwen2.5-7B
             Model{published("qwen2", {896, 4864, 24, 14, 2, 151936}, kTied), 290, 494032768},
             Model{published("qwen2", {3584, 18944, 28, 28, 4, 152064}, ""), 339, 7615616512},
             // Qwen3-0.6B (head_dim 128 is the default), Qwen3-8B
             Model{published("qwen3", {1024, 3072, 28, 16, 8, 151936}, kTied), 310, 596049920},
             Model{published("qwen3", {4096, 12288, 36, 32, 8, 151936}, head_128), 399, 8190735360},
         }) {
      CAPTURE(model.config);
      const ModelConfig config = parse(model.config);
      CHECK(expected_tensors(config).size() == model.tensors);
      CHECK(count_parameters(config) == model.parameters);
    }
  }

  TEST_CASE("families: what a Qwen file leaves out is transformers' default") {
    for (const std::string type : {"qwen2", "qwen3"}) {
      CAPTURE(type);
      const ModelConfig c =
          parse(R"({"model_type": ")" + type + R"(", "vocab_size": 61, "hidden_size": 64,
              "intermediate_size": 53, "num_hidden_layers": 2, "num_attention_heads": 32})");
      CHECK(c.num_key_value_heads == 32);
      CHECK(c.max_position_embeddings == 32768);
      CHECK_FALSE(c.sliding_window.has_value());
      CHECK(c.layer_types.empty());
      CHECK_FALSE(c.bos_token_id.has_value());
      CHECK(c.eos_token_id.empty());
      CHECK(c.head_size() == (type == "qwen3" ? 128 : 2));
      CHECK(c.has_qkv_bias() == (type == "qwen2"));
      CHECK_FALSE(c.has_output_bias());
      CHECK(c.has_qk_norm() == (type == "qwen3"));
    }
    CHECK(parse(small("qwen3", R"("attention_bias": true)")).has_output_bias());
    // The field is not Qwen2's: its biases do not depend on it.
    const ModelConfig qwen2 = parse(small("qwen2", R"("attention_bias": false)"));
    CHECK(qwen2.has_qkv_bias());
    CHECK_FALSE(parse(small("qwen2", R"("attention_bias": true)")).has_output_bias());
    CHECK(contains(problem("qwen2", R"("mlp_bias": true)"), "mlp_bias must be false"));
  }

  TEST_CASE("families: a Qwen layer has a window by use_sliding_window and its place or type") {
    const auto of = [](const std::string& more) { return windows(parse(small("qwen2", more))); };
    CHECK(of("") == "- - - - ");
    CHECK(of(R"("sliding_window": 8, "max_window_layers": 1)") == "- - - - ");
    CHECK(of(R"("use_sliding_window": true, "sliding_window": 8, "max_window_layers": 1)") ==
          "- 8 8 8 ");
    CHECK(of(R"("use_sliding_window": true, "max_window_layers": 0)") == "4096 4096 4096 4096 ");
    CHECK(of(R"("use_sliding_window": true, "sliding_window": 8)") == "- - - - ");  // 28 are full
    CHECK(of(R"("use_sliding_window": true, "sliding_window": null, "max_window_layers": 0)") ==
          "- - - - ");
    CHECK(of(R"("use_sliding_window": true, "sliding_window": 8, "max_window_layers": 4,
                "layer_types": ["sliding_attention", "full_attention", "sliding_attention",
                                "full_attention"])") == "8 - 8 - ");
    const std::string sliding = R"("layer_types": ["full_attention", "full_attention",
                                                   "full_attention", "sliding_attention"])";
    CHECK(contains(problem("qwen3", sliding), "the model has no sliding window"));
    CHECK(contains(problem("qwen2", R"("layer_types": ["full_attention"])"),
                   "layer_types has 1 entries; expected 4"));
    CHECK(contains(problem("qwen2", R"("layer_types": ["full_attention", "full_attention",
                                       "full_attention", "chunked_attention"])"),
                   "chunked_attention"));
    CHECK(contains(problem("llama", sliding), "full_attention"));
  }

  TEST_CASE("families: windows survive save, in the words of transformers 4 and 5") {
    ModelConfig c = parse(small("qwen3", R"("use_sliding_window": true, "sliding_window": 8,
                                            "max_window_layers": 3)"));
    CHECK(windows(saved_and_read(c)) == "- - - 8 ");
    const TemporaryFolder folder;
    c.save(folder / "config.json");
    const std::string text = read_file(folder / "config.json");
    CHECK(contains(text, "\"max_window_layers\": 3"));
    CHECK(contains(text, "\"use_sliding_window\": true"));
    CHECK(contains(text, "\"sliding_attention\""));
    c.layer_types = {"sliding_attention", "full_attention", "full_attention", "sliding_attention"};
    CHECK(windows(saved_and_read(c)) == "8 - - 8 ");
    c.layer_types.clear();
    CHECK(windows(saved_and_read(c)) == "8 8 8 8 ");
    c.sliding_window.reset();
    CHECK(windows(saved_and_read(c)) == "- - - - ");
    c.model_type = "mistral";
    c.layer_types = {"sliding_attention"};
    CHECK(contains(error_of([&] { c.validate(); }), "layer_types must be empty"));
  }

  TEST_CASE("families: rotary scaling is read in both spellings and survives save") {
    const std::string numbers = R"("factor": 8, "low_freq_factor": 1.5, "high_freq_factor": 4.5,
                                   "original_max_position_embeddings": 512)";
    const ModelConfig v4 = parse(small("llama", R"("rope_theta": 5e5, "rope_scaling":
        {"rope_type": "llama3", )" + numbers + "}"));
    const ModelConfig v5 = parse(small("llama", R"("rope_parameters":
        {"rope_type": "llama3", "rope_theta": 500000.0, )" +
                                                    numbers + "}"));
    for (const ModelConfig& c : {v4, v5, saved_and_read(v4)}) {
      CHECK(c.rope_theta == 5e5);
      CHECK((c.rope_scaling.type == RopeType::llama3));
      CHECK(c.rope_scaling.factor == 8);
      CHECK(c.rope_scaling.low_freq_factor == 1.5);
      CHECK(c.rope_scaling.high_freq_factor == 4.5);
      CHECK(c.rope_scaling.original_max_position_embeddings == 512);
    }
    const ModelConfig yarn = parse(small("qwen2", R"("max_position_embeddings": 4096,
        "rope_scaling": {"type": "yarn", "factor": 4, "attention_factor": 1.5, "mscale": 0.5,
                         "mscale_all_dim": 0.25, "beta_fast": 0, "beta_slow": 2,
                         "truncate": false, "finetuned": true})"));
    for (const ModelConfig& c : {yarn, saved_and_read(yarn)}) {
      CHECK((c.rope_scaling.type == RopeType::yarn));
      CHECK(c.rope_scaling.original_max_position_embeddings == 4096);
      CHECK(c.rope_scaling.attention_factor == 1.5);
      CHECK(c.rope_scaling.mscale == 0.5);
      CHECK(c.rope_scaling.mscale_all_dim == 0.25);
      CHECK(c.rope_scaling.beta_fast == 32);  // 0 is no number of turns
      CHECK(c.rope_scaling.beta_slow == 2);
      CHECK_FALSE(c.rope_scaling.truncate);
    }
    for (const std::string type : {"linear", "dynamic"}) {
      CAPTURE(type);
      const ModelConfig c = saved_and_read(
          parse(small("mistral", R"("rope_scaling": {"type": ")" + type + R"(", "factor": 2.5})")));
      CHECK((c.rope_scaling.type == (type == "linear" ? RopeType::linear : RopeType::dynamic)));
      CHECK(c.rope_scaling.factor == 2.5);
    }
  }

  TEST_CASE("families: of two rotary sections the one that transformers takes counts") {
    const std::string parameters = R"("rope_parameters": {"rope_type": "linear", "factor": 2,
                                                          "rope_theta": 777.0})";
    const ModelConfig both = parse(small("llama", parameters + R"(, "rope_theta": 555.0,
        "rope_scaling": {"type": "dynamic", "factor": 3})"));
    CHECK((both.rope_scaling.type == RopeType::dynamic));
    CHECK(both.rope_theta == 555);
    const ModelConfig one = parse(small("llama", parameters + R"(, "rope_theta": 555.0,
        "rope_scaling": {})"));
    CHECK((one.rope_scaling.type == RopeType::linear));
    CHECK(one.rope_theta == 777);
    const ModelConfig named_twice = parse(small("llama", R"("rope_scaling":
        {"rope_type": "linear", "type": "dynamic", "factor": 3})"));
    CHECK((named_twice.rope_scaling.type == RopeType::linear));
    // A length outside the section comes first, and yarn's factor may follow from the lengths.
    const ModelConfig yarn = parse(small("llama", R"("max_position_embeddings": 1000,
        "original_max_position_embeddings": 250, "rope_scaling":
        {"rope_type": "yarn", "factor": null, "original_max_position_embeddings": 500})"));
    CHECK(yarn.rope_scaling.original_max_position_embeddings == 250);
    CHECK(yarn.rope_scaling.factor == 4);
  }

  TEST_CASE("families: rotary scaling that cannot be computed is refused") {
    const auto refused = [](const std::string& rope, const std::string& part) {
      const std::string message = problem("llama", "\"rope_scaling\": {" + rope + "}");
      CAPTURE(rope);
      CAPTURE(message);
      CHECK(contains(message, part));
    };
    refused(R"("rope_type": "longrope", "factor": 2)",
            "\"longrope\" is not supported; supported: default, linear, dynamic, yarn, llama3");
    refused(R"("rope_type": "linear")", "factor");
    refused(R"("rope_type": "linear", "factor": null)", "factor");
    refused(R"("rope_type": "linear", "factor": 0)", "rope_scaling.factor");
    refused(R"("rope_type": "dynamic", "factor": "2")", "factor");
    refused(R"("rope_type": "llama3", "factor": 8, "low_freq_factor": 1)", "high_freq_factor");
    refused(R"("rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4)",
            "expected more than low_freq_factor");
    refused(R"("rope_type": "llama3", "factor": 8, "low_freq_factor": 0, "high_freq_factor": 4)",
            "low_freq_factor");
    refused(R"("rope_type": "yarn")", "factor");
    refused(R"("rope_type": "yarn", "factor": 2, "rope_theta": 1)", "rope_theta is 1");
    refused(R"("rope_type": "yarn", "factor": 2, "attention_factor": 0)", "attention_factor");
    refused(R"("rope_type": "yarn", "factor": 2, "original_max_position_embeddings": 0)",
            "original_max_position_embeddings");
    refused(R"("rope_type": "yarn", "factor": 2, "partial_rotary_factor": 0.5)",
            "partial_rotary_factor");
    const std::string message = problem("llama", R"("head_dim": 2, "rope_scaling":
        {"type": "dynamic", "factor": 2})");
    CHECK(contains(message, "heads of 4 dimensions or more"));
  }

  TEST_CASE("families: expected_tensors are the parameters of the model") {
    for (const std::string type : {"llama", "mistral", "qwen2", "qwen3"}) {
      for (const bool bias : {false, true}) {
        if (bias && (type == "mistral" || type == "qwen2")) continue;
        CAPTURE(type);
        CAPTURE(bias);
        ModelConfig c = parse(small(type, bias ? R"("attention_bias": true)" : ""));
        c.initializer_range = 0.3;
        const auto model = toy_model(c);
        const auto parameters = model->named_parameters();
        const auto specs = expected_tensors(c);
        CHECK(specs.size() == parameters.size());
        for (const TensorSpec& spec : specs) {
          CAPTURE(spec.name);
          REQUIRE(parameters.contains(spec.name));
          CHECK(parameters[spec.name].sizes() == torch::IntArrayRef(spec.shape));
        }
        CHECK(num_parameters(*model) == count_parameters(c));
        const TemporaryFolder folder;
        model->save_pretrained(folder / "m");
        const PackedInput input = PackedInput::single(random_ids(7, 61, 1));
        const torch::NoGradGuard no_grad;
        const auto loaded = CausalLM::from_pretrained(folder / "m");
        CHECK(torch::equal(loaded->forward(input), model->forward(input)));
      }
    }
  }

  TEST_CASE("rotary: a scaling without effect leaves the frequencies alone") {
    const torch::Tensor plain = rope_frequencies(16, 1e4, {}, 64).inverse;
    for (const RopeType type :
         {RopeType::linear, RopeType::dynamic, RopeType::llama3, RopeType::yarn}) {
      const RopeFrequencies scaled = rope_frequencies(16, 1e4, {.type = type, .factor = 1.0}, 64);
      CHECK(distance(scaled.inverse, plain) < 1e-6);
      CHECK(scaled.attention_factor == 1.0);
    }
    CHECK(distance(rope_frequencies(16, 1e4, {.type = RopeType::linear, .factor = 4}, 64).inverse,
                   plain / 4) < 1e-6);
  }

  TEST_CASE("rotary: the attention factor stretches cosines and sines, so products by its square") {
    const RopeScaling scaling{.type = RopeType::yarn, .factor = 1.0, .attention_factor = 1.5};
    RotaryEmbedding stretched(8, 1e4, scaling, 64);
    RotaryEmbedding plain(8, 1e4);
    const torch::Tensor x = random_tensor({1, 1, 8}, 6, torch::kFloat64);
    const auto turned = [&](RotaryEmbedding& rotary) {
      return rotate(x, rotary.at(torch::tensor({std::int64_t{3}}), torch::kFloat64));
    };
    CHECK(turned(stretched).norm().item<double>() ==
          doctest::Approx(1.5 * turned(plain).norm().item<double>()).epsilon(1e-6));
  }
}
