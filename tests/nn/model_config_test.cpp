#include "nn/toy.hpp"

#include <lorapp/nn/model_config.hpp>

#include "support/temporary_folder.hpp"

#include <set>
#include <string>

using namespace lorapp;
using namespace lorapp::test;

namespace {

// The fields every config must have, and `more`.
std::string config_text(const std::string& more, const std::string& type = "mistral") {
  return R"({"model_type": ")" + type + R"(", "vocab_size": 61, "hidden_size": 36,
    "intermediate_size": 53, "num_hidden_layers": 3, "num_attention_heads": 6)" +
         (more.empty() ? "" : ", " + more) + "}";
}

ModelConfig parse(const std::string& text) {
  const TemporaryFolder folder;
  return ModelConfig::from_file(folder.write("config.json", text));
}

std::string problem(const std::string& text) {
  return error_of([&] { parse(text); });
}

}  // namespace

TEST_SUITE("nn") {
  TEST_CASE("config: what a file leaves out is transformers' default for its model type") {
    const ModelConfig llama = parse(config_text("", "llama"));
    CHECK(llama.architectures == std::vector<std::string>{"LlamaForCausalLM"});
    CHECK(llama.num_key_value_heads == 6);
    CHECK(llama.max_position_embeddings == 2048);
    CHECK_FALSE(llama.sliding_window.has_value());
    CHECK(llama.rms_norm_eps == 1e-6);
    CHECK(llama.rope_theta == 10000.0);
    CHECK(llama.initializer_range == 0.02);
    CHECK_FALSE(llama.tie_word_embeddings);
    CHECK(llama.bos_token_id == 1);
    CHECK(llama.eos_token_id == std::vector<std::int64_t>{2});
    CHECK_FALSE(llama.pad_token_id.has_value());
    CHECK_FALSE(llama.dtype.has_value());
    CHECK_FALSE(llama.head_dim.has_value());
    CHECK(llama.head_size() == 6);
    const ModelConfig mistral = parse(
        R"({"architectures": ["MistralForCausalLM"], "vocab_size": 61, "hidden_size": 64,
            "intermediate_size": 53, "num_hidden_layers": 3, "num_attention_heads": 16})");
    CHECK(mistral.num_key_value_heads == 8);
    CHECK(mistral.sliding_window == 4096);
    CHECK(mistral.max_position_embeddings == 131072);
  }

  TEST_CASE("config: null and absent are told apart where transformers does") {
    const ModelConfig c = parse(config_text(
        R"("num_key_value_heads": null, "sliding_window": null, "head_dim": null,
           "bos_token_id": null, "eos_token_id": null, "pad_token_id": -1, "rope_scaling": null)"));
    CHECK(c.num_key_value_heads == 6);
    CHECK_FALSE(c.sliding_window.has_value());
    CHECK_FALSE(c.bos_token_id.has_value());
    CHECK(c.eos_token_id.empty());
    CHECK_FALSE(c.pad_token_id.has_value());
  }

  TEST_CASE("config: the spellings of transformers 4 and 5 mean the same") {
    const ModelConfig v4 = parse(config_text(
        R"("num_key_value_heads": 2, "torch_dtype": "bfloat16", "rope_theta": 1e6,
           "rope_scaling": {"type": "default"})"));
    const ModelConfig v5 = parse(config_text(
        R"("num_key_value_heads": 2, "dtype": "bfloat16",
           "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0})"));
    for (const ModelConfig& c : {v4, v5}) {
      CHECK((c.dtype == torch::kBFloat16));
      CHECK(c.rope_theta == 1e6);
    }
  }

  TEST_CASE("config: eos_token_id may be a list, head_dim may differ from hidden / heads") {
    const ModelConfig c = parse(config_text(
        R"("num_key_value_heads": 3, "eos_token_id": [2, 7], "head_dim": 10, "sliding_window": 5,
           "layer_types": ["sliding_attention", "sliding_attention", "sliding_attention"])"));
    CHECK(c.eos_token_id == std::vector<std::int64_t>{2, 7});
    CHECK(c.head_size() == 10);
    CHECK(c.sliding_window == 5);
  }

  TEST_CASE("config: generation_config.json decides which ids end a text") {
    const TemporaryFolder folder;
    folder.write("config.json", config_text(R"("num_key_value_heads": 2, "bos_token_id": 5)"));
    folder.write("generation_config.json", R"({"eos_token_id": [3, 4]})");
    const ModelConfig c = ModelConfig::from_pretrained(folder.path());
    CHECK(c.eos_token_id == std::vector<std::int64_t>{3, 4});
    CHECK(c.bos_token_id == 5);
    folder.write("generation_config.json", R"({"eos_token_id": "three"})");
    const std::string message = error_of([&] { ModelConfig::from_pretrained(folder.path()); });
    CHECK(contains(message, "generation_config.json"));
    CHECK(contains(message, "eos_token_id"));
  }

  TEST_CASE("config: an unknown architecture is an error that lists the supported ones") {
    const std::string message = problem(R"({"architectures": ["GPT2LMHeadModel"], "n_embd": 3})");
    CHECK(contains(message, "GPT2LMHeadModel"));
    CHECK(contains(message,
                   "LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM"));
    CHECK(contains(problem(R"({"model_type": "phi"})"),
                   "\"phi\" is not supported; supported: llama, mistral, qwen2, qwen3"));
    CHECK(contains(problem("{}"), "neither architectures nor model_type"));
    CHECK(contains(problem(config_text(R"("architectures": ["LlamaForCausalLM"])")),
                   "LlamaForCausalLM, but model_type says \"mistral\""));
    CHECK(contains(problem("[1]"), "object"));
    CHECK(contains(problem("{"), "config.json"));
  }

  TEST_CASE("config: all problems of a file come in one message") {
    const std::string message = problem(
        R"({"architectures": ["MistralForCausalLM"], "vocab_size": "many", "hidden_size": 36,
            "intermediate_size": -1, "num_hidden_layers": 3.5, "num_attention_heads": 6,
            "hidden_act": 3, "rope_scaling": {"rope_type": "longrope", "factor": 4},
            "dtype": "float8", "attention_dropout": 0.1})");
    for (const char* part : {"vocab_size", "intermediate_size", "num_hidden_layers", "hidden_act",
                             "longrope", "supported: default", "dtype", "attention_dropout"}) {
      CAPTURE(part);
      CHECK(contains(message, part));
    }
    CHECK(contains(problem(R"({"model_type": "llama"})"), "hidden_size"));
  }

  TEST_CASE("config: sizes that do not fit together are refused") {
    const auto refused = [](const std::string& more, const std::string& part) {
      const std::string message = problem(config_text(more));
      CAPTURE(message);
      CHECK(contains(message, part));
    };
    refused(R"("num_key_value_heads": 4)", "num_attention_heads (6) is not a multiple");
    refused(R"("num_key_value_heads": 2, "head_dim": 5)", "even");
    refused(R"("num_key_value_heads": 2, "hidden_act": "gelu")", "gelu");
    refused(R"("num_key_value_heads": 2, "head_dim": 1000000)", "head_dim");
    refused(R"("num_key_value_heads": 2, "sliding_window": 0)", "sliding_window");
    refused(R"("num_key_value_heads": 2, "rms_norm_eps": 0)", "rms_norm_eps");
    refused(R"("num_key_value_heads": 2, "attention_bias": true)", "attention_bias must be false");
    refused(R"("num_key_value_heads": 2, "mlp_bias": true)", "mlp_bias must be false");
    refused(R"("num_key_value_heads": 2, "layer_types": ["full_attention"])", "full_attention");
    refused(R"("num_key_value_heads": 2, "partial_rotary_factor": 0.5)", "partial_rotary_factor");
    refused(R"("num_key_value_heads": 2, "quantization_config": {"quant_method": "gptq"})", "gptq");
    refused(
        R"("num_key_value_heads": 2, "rope_parameters": {"full_attention": {"rope_theta": 1e6}})",
        "\"full_attention\" is an object");
    CHECK(contains(problem(R"({"model_type": "llama", "vocab_size": 61, "hidden_size": 37,
        "intermediate_size": 53, "num_hidden_layers": 3, "num_attention_heads": 6})"),
                   "hidden_size (37) is not a multiple"));
    CHECK(contains(problem(R"({"model_type": "llama", "vocab_size": 99999999999, "hidden_size": 36,
        "intermediate_size": 53, "num_hidden_layers": 3, "num_attention_heads": 6})"),
                   "vocab_size"));
  }

  TEST_CASE("config: what save writes is read back, for both model types") {
    const TemporaryFolder folder;
    ModelConfig c = toy_config();
    c.sliding_window = 7;
    c.eos_token_id = {2, 9};
    c.pad_token_id = 3;
    c.dtype = torch::kBFloat16;
    c.rope_theta = 12345.5;
    c.rms_norm_eps = 3e-6;
    c.tie_word_embeddings = true;
    c.save(folder / "config.json");
    const ModelConfig m = ModelConfig::from_file(folder / "config.json");
    CHECK(m.model_type == "mistral");
    CHECK(m.vocab_size == 61);
    CHECK(m.head_size() == 10);
    CHECK(m.num_key_value_heads == 2);
    CHECK(m.sliding_window == 7);
    CHECK(m.eos_token_id == c.eos_token_id);
    CHECK(m.pad_token_id == 3);
    CHECK((m.dtype == torch::kBFloat16));
    CHECK(m.rope_theta == 12345.5);
    CHECK(m.rms_norm_eps == 3e-6);
    CHECK(m.tie_word_embeddings);
    c.sliding_window.reset();
    c.save(folder / "config.json");
    CHECK_FALSE(ModelConfig::from_file(folder / "config.json").sliding_window.has_value());
    c.model_type = "llama";
    c.architectures = {"LlamaForCausalLM"};
    c.attention_bias = true;
    c.save(folder / "config.json");
    const ModelConfig l = ModelConfig::from_file(folder / "config.json");
    CHECK(l.attention_bias);
    CHECK_FALSE(l.mlp_bias);
    c.num_key_value_heads = 5;
    CHECK(contains(error_of([&] { c.save(folder / "config.json"); }), "multiple"));
  }

  TEST_CASE("expected_tensors: are the parameters of the model by name and shape") {
    for (const bool tied : {false, true}) {
      ModelConfig c = toy_config();
      c.tie_word_embeddings = tied;
      const auto model = toy_model(c);
      const auto parameters = model->named_parameters();
      const auto specs = expected_tensors(c);
      CHECK(specs.size() == parameters.size());
      for (const TensorSpec& spec : specs) {
        CAPTURE(spec.name);
        REQUIRE(parameters.contains(spec.name));
        CHECK(parameters[spec.name].sizes() == torch::IntArrayRef(spec.shape));
      }
    }
  }
}
