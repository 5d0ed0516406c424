// Model folders as GGUF files.
#include "support/error_of.hpp"
#include "support/gguf_file.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_model.hpp"
#include "support/tiny_tokenizer.hpp"

#include <lorapp/data/tokenizer.hpp>
#include <lorapp/io/checkpoint.hpp>
#include <lorapp/nn/quantize_pretrained.hpp>
#include <lorapp/peft/export_gguf.hpp>
#include <lorapp/quant/ops.hpp>

#include <doctest/doctest.h>
#include <torch/types.h>

#include <cmath>
#include <string>
#include <vector>

using namespace lorapp;
using namespace lorapp::test;

namespace {

// Rows of 64 and 96: whole blocks of q8_0.
ModelConfig gguf_config() {
  ModelConfig config = tiny_config();
  config.vocab_size = kTinyVocabSize + 5;  // some rows that no token has
  config.hidden_size = 64;
  config.intermediate_size = 96;
  config.head_dim = 16;
  return config;
}

void make(const std::filesystem::path& dir, const ModelConfig& config) {
  tiny_model(7, config)->save_pretrained(dir);
  write_tiny_tokenizer(dir);
}

GgufFileContent exported(const std::filesystem::path& dir,
                         const std::filesystem::path& path,
                         const GgufOptions& options = {.type = GgufType::f32}) {
  export_gguf(dir, path, options);
  return GgufFileContent(read_file(path));
}

}  // namespace

TEST_SUITE_BEGIN("peft");

TEST_CASE("export_gguf: every tensor of the folder is there, q and k in llama.cpp's order") {
  const TemporaryFolder folder;
  make(folder / "model", gguf_config());
  const GgufFile written =
      export_gguf(folder / "model", folder / "m.gguf", {.type = GgufType::f32});
  const GgufFileContent file(read_file(folder / "m.gguf"));
  const Checkpoint model = Checkpoint::open(folder / "model");
  CHECK(file.tensors.size() == model.names().size());
  CHECK(written.tensors == static_cast<std::int64_t>(model.names().size()));
  CHECK(written.bytes == static_cast<std::int64_t>(std::filesystem::file_size(folder / "m.gguf")));
  const std::pair<const char*, const char*> same[] = {
      {"token_embd.weight", "model.embed_tokens.weight"},
      {"output.weight", "lm_head.weight"},
      {"output_norm.weight", "model.norm.weight"},
      {"blk.1.attn_v.weight", "model.layers.1.self_attn.v_proj.weight"},
      {"blk.1.attn_output.weight", "model.layers.1.self_attn.o_proj.weight"},
      {"blk.1.ffn_gate.weight", "model.layers.1.mlp.gate_proj.weight"},
      {"blk.1.ffn_up.weight", "model.layers.1.mlp.up_proj.weight"},
      {"blk.1.ffn_down.weight", "model.layers.1.mlp.down_proj.weight"},
      {"blk.1.attn_norm.weight", "model.layers.1.input_layernorm.weight"},
      {"blk.1.ffn_norm.weight", "model.layers.1.post_attention_layernorm.weight"}};
  for (const auto& [theirs, ours] : same) {
    const auto& captured = theirs;  // clang 14 captures no binding
    CAPTURE(captured);
    CHECK(torch::equal(file.tensors.at(theirs), model.view(ours)));
  }
  // Row 2i of a head is row i of its first half, row 2i + 1 that of its second.
  for (const auto& [theirs, ours, heads] :
       {std::tuple("blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj.weight", 4),
        std::tuple("blk.0.attn_k.weight", "model.layers.0.self_attn.k_proj.weight", 2)}) {
    const torch::Tensor got = file.tensors.at(theirs);
    const torch::Tensor want = model.view(ours);
    for (int row = 0; row < 16 * heads; ++row) {
      const int head = row / 16;
      const int i = row % 16;
      CHECK(torch::equal(got[row], want[head * 16 + i / 2 + (i % 2) * 8]));
    }
  }
}

TEST_CASE("export_gguf: the keys are those of config.json and of the tokenizer") {
  const TemporaryFolder folder;
  make(folder / "model", gguf_config());
  folder.write("model/chat_template.jinja", "{{ messages }}");
  const GgufFileContent file =
      exported(folder / "model", folder / "m.gguf", {.type = GgufType::q8_0, .name = "mine"});
  const std::pair<const char*, double> numbers[] = {{"llama.vocab_size", kTinyVocabSize + 5},
                                                    {"llama.context_length", 128},
                                                    {"llama.embedding_length", 64},
                                                    {"llama.block_count", 2},
                                                    {"llama.feed_forward_length", 96},
                                                    {"llama.attention.head_count", 4},
                                                    {"llama.attention.head_count_kv", 2},
                                                    {"llama.attention.key_length", 16},
                                                    {"llama.rope.dimension_count", 16},
                                                    {"llama.rope.freq_base", 10000},
                                                    {"general.file_type", 7},
                                                    {"tokenizer.ggml.bos_token_id", 1},
                                                    {"tokenizer.ggml.eos_token_id", 2},
                                                    {"tokenizer.ggml.unknown_token_id", 0},
                                                    {"tokenizer.ggml.add_bos_token", 1},
                                                    {"tokenizer.ggml.add_eos_token", 0},
                                                    {"tokenizer.ggml.add_space_prefix", 1}};
  for (const auto& [key, value] : numbers) {
    const auto& captured = key;  // clang 14 captures no binding
    CAPTURE(captured);
    REQUIRE(file.numbers.contains(key));
    CHECK(file.numbers.at(key) == value);
  }
  CHECK(file.texts.at("general.architecture") == "llama");
  CHECK(file.texts.at("general.name") == "mine");
  CHECK(file.texts.at("tokenizer.ggml.model") == "llama");
  CHECK(file.texts.at("tokenizer.chat_template") == "{{ messages }}");

  const Tokenizer tokenizer = Tokenizer::from_pretrained(folder / "model");
  const auto& tokens = file.text_lists.at("tokenizer.ggml.tokens");
  const auto& types = file.number_lists.at("tokenizer.ggml.token_type");
  const auto& scores = file.number_lists.at("tokenizer.ggml.scores");
  REQUIRE(tokens.size() == kTinyVocabSize + 5);
  CHECK(types.size() == tokens.size());
  CHECK(scores.size() == tokens.size());
  for (int id = 0; id < kTinyVocabSize; ++id) {
    CHECK(tokens[static_cast<std::size_t>(id)] == tokenizer.id_to_token(id));
  }
  const std::pair<std::size_t, int> kinds[] = {
      {0, 2}, {1, 3}, {2, 3}, {3, 6}, {258, 6}, {259, 1}, {kTinyVocabSize, 5}};
  for (const auto& [id, kind] : kinds) CHECK(types[id] == kind);
  CHECK(scores[259] == 0);  // the first merge, then the second
  CHECK(scores[260] == -1);
}

TEST_CASE("export_gguf: matrices have the type that was asked for, vectors are float32") {
  const TemporaryFolder folder;
  ModelConfig config = gguf_config();
  config.intermediate_size = 72;  // no whole number of blocks in a row of down_proj
  make(folder / "model", config);
  const Checkpoint model = Checkpoint::open(folder / "model");
  for (const GgufType type : {GgufType::f16, GgufType::bf16, GgufType::q8_0}) {
    CAPTURE(gguf_type_name(type));
    const GgufFileContent file = exported(folder / "model", folder / "m.gguf", {.type = type});
    CHECK(file.types.at("blk.0.ffn_up.weight") == type);
    CHECK(file.types.at("token_embd.weight") == type);
    CHECK(file.types.at("blk.0.attn_norm.weight") == GgufType::f32);
    CHECK(file.types.at("blk.0.ffn_down.weight") ==
          (type == GgufType::q8_0 ? GgufType::f16 : type));
    const torch::Tensor want = model.view("model.layers.0.mlp.up_proj.weight");
    CHECK(torch::equal(file.tensors.at("blk.0.ffn_up.weight"),
                       gguf_decode(gguf_encode(want, type), want.sizes().vec(), type)));
  }
}

TEST_CASE("export_gguf: a 4-bit folder is written with its dequantized values") {
  const TemporaryFolder folder;
  make(folder / "model", gguf_config());
  quantize_pretrained(folder / "model", folder / "q", {.quant_config = {.use_double_quant = true}});
  const GgufFileContent file = exported(folder / "q", folder / "q.gguf");
  const QuantizedTensor want =
      quantize_4bit(Checkpoint::open(folder / "model").view("model.layers.1.mlp.up_proj.weight"),
                    {.use_double_quant = true});
  CHECK(torch::equal(file.tensors.at("blk.1.ffn_up.weight"), dequantize_4bit(want)));
}

TEST_CASE(
    "export_gguf: tied heads, biases, head norms and rotary scaling go where llama.cpp looks") {
  const TemporaryFolder folder;
  ModelConfig config = gguf_config();
  config.tie_word_embeddings = true;
  config.model_type = "llama";
  config.architectures = {"LlamaForCausalLM"};
  config.attention_bias = true;
  config.rope_scaling = {
      .type = RopeType::llama3, .factor = 8, .original_max_position_embeddings = 32};
  make(folder / "llama", config);
  const GgufFileContent llama = exported(folder / "llama", folder / "m.gguf");
  CHECK_FALSE(llama.tensors.contains("output.weight"));
  CHECK(llama.tensors.contains("blk.1.attn_output.bias"));
  CHECK(llama.types.at("blk.1.attn_q.bias") == GgufType::f32);
  const torch::Tensor divisors = llama.tensors.at("rope_freqs.weight");
  CHECK(divisors.sizes() == torch::IntArrayRef{8});
  CHECK(divisors[0].item<double>() == doctest::Approx(1));  // turns often within 32 positions
  CHECK(divisors[7].item<double>() == doctest::Approx(8));  // turns slowly

  config.rope_scaling = {
      .type = RopeType::yarn, .factor = 4, .original_max_position_embeddings = 32};
  make(folder / "yarn", config);
  const GgufFileContent yarn = exported(folder / "yarn", folder / "y.gguf");
  CHECK(yarn.texts.at("llama.rope.scaling.type") == "yarn");
  CHECK(yarn.numbers.at("llama.rope.scaling.factor") == 4);
  CHECK(yarn.numbers.at("llama.rope.scaling.original_context_length") == 32);
  CHECK_FALSE(yarn.tensors.contains("rope_freqs.weight"));

  ModelConfig qwen = gguf_config();
  qwen.model_type = "qwen3";
  qwen.architectures = {"Qwen3ForCausalLM"};
  make(folder / "qwen3", qwen);
  const GgufFileContent qwen3 = exported(folder / "qwen3", folder / "q.gguf");
  CHECK(qwen3.texts.at("general.architecture") == "qwen3");
  CHECK(qwen3.numbers.at("qwen3.block_count") == 2);
  CHECK(qwen3.tensors.contains("blk.1.attn_k_norm.weight"));
  CHECK(torch::equal(
      qwen3.tensors.at("blk.0.attn_q.weight"),
      Checkpoint::open(folder / "qwen3").view("model.layers.0.self_attn.q_proj.weight")));
}

TEST_CASE("export_gguf: what llama.cpp would do otherwise is one error, and leaves no file") {
  const TemporaryFolder folder;
  ModelConfig config = gguf_config();
  config.model_type = "llama";
  config.architectures = {"LlamaForCausalLM"};
  config.rope_scaling = {.type = RopeType::dynamic, .factor = 2};
  config.vocab_size = 100;
  make(folder / "model", config);
  const auto error = [&](const std::filesystem::path& dir) {
    return error_of([&] { export_gguf(dir, folder / "m.gguf"); });
  };
  const std::string message = error(folder / "model");
  CHECK(contains(message, "dynamic rotary scaling"));
  CHECK(contains(message, "the embedding has 100 rows"));
  tiny_model(7, gguf_config())->save_pretrained(folder / "bare");
  CHECK(contains(error(folder / "bare"), "tokenizer"));
  make(folder / "large", gguf_config());
  {
    auto large = tiny_model(7, gguf_config());
    const torch::NoGradGuard no_grad;
    large->named_parameters()["model.layers.1.mlp.up_proj.weight"][3][5] = 1e5;
    large->save_pretrained(folder / "large");
  }
  const std::string overflow = error(folder / "large");
  CHECK(contains(overflow, "blk.1.ffn_up.weight: "));
  CHECK(contains(overflow, "not finite in f16"));
  CHECK_FALSE(std::filesystem::exists(folder / "m.gguf"));
}

TEST_SUITE_END();
