#include "nn/toy.hpp"

#include <vector>

using namespace lorapp;
using namespace lorapp::test;

namespace {

using Ids = std::vector<std::int64_t>;

std::vector<Ids> ragged_sequences(std::int64_t vocab) {
  return {random_ids(7, vocab, 1), random_ids(1, vocab, 2), random_ids(19, vocab, 3),
          random_ids(2, vocab, 4)};
}

// The forward pass written from the definition in float64, for one sequence.
torch::Tensor logits_by_definition(const DecoderLM& model, const Ids& ids) {
  const ModelConfig& c = model.config();
  auto all = model.named_parameters();
  const auto w = [&](const std::string& name) { return all[name].detach().to(torch::kFloat64); };
  const auto norm = [&](const torch::Tensor& x, const std::string& name) {
    return x * at::rsqrt(x.pow(2).mean(-1, true) + c.rms_norm_eps) * w(name);
  };
  const auto count = static_cast<std::int64_t>(ids.size());
  const std::int64_t d = c.head_size(), group = c.num_attention_heads / c.num_key_value_heads;
  const torch::Tensor angles =
      torch::arange(count, torch::kFloat64).unsqueeze(1) *
      at::pow(c.rope_theta, -torch::arange(0, d, 2, torch::kFloat64) / static_cast<double>(d));
  const torch::Tensor cos = torch::cat({angles, angles}, 1).cos();
  const torch::Tensor sin = torch::cat({angles, angles}, 1).sin();
  const auto turn = [&](const torch::Tensor& x) {  // [T, d]
    const torch::Tensor swapped = torch::cat({-x.slice(1, d / 2), x.slice(1, 0, d / 2)}, 1);
    return x * cos + swapped * sin;
  };
  torch::Tensor mask = torch::ones({count, count}, torch::kBool).tril();
  if (c.sliding_window) mask = mask.triu(1 - *c.sliding_window);
  torch::Tensor x = w("model.embed_tokens.weight").index_select(0, torch::tensor(ids));
  for (std::int64_t layer = 0; layer < c.num_hidden_layers; ++layer) {
    const std::string p = "model.layers." + std::to_string(layer) + ".";
    const torch::Tensor h = norm(x, p + "input_layernorm.weight");
    const torch::Tensor q = h.mm(w(p + "self_attn.q_proj.weight").t());
    const torch::Tensor k = h.mm(w(p + "self_attn.k_proj.weight").t());
    const torch::Tensor v = h.mm(w(p + "self_attn.v_proj.weight").t());
    std::vector<torch::Tensor> heads;
    for (std::int64_t n = 0; n < c.num_attention_heads; ++n) {
      const std::int64_t m = n / group;
      const torch::Tensor scores =
          turn(q.slice(1, n * d, (n + 1) * d)).mm(turn(k.slice(1, m * d, (m + 1) * d)).t()) /
          std::sqrt(static_cast<double>(d));
      heads.push_back(scores.masked_fill(mask.logical_not(), -INFINITY)
                          .softmax(1)
                          .mm(v.slice(1, m * d, (m + 1) * d)));
    }
    x = x + torch::cat(heads, 1).mm(w(p + "self_attn.o_proj.weight").t());
    const torch::Tensor f = norm(x, p + "post_attention_layernorm.weight");
    const torch::Tensor gate = f.mm(w(p + "mlp.gate_proj.weight").t());
    x = x + (gate * gate.sigmoid() * f.mm(w(p + "mlp.up_proj.weight").t()))
                .mm(w(p + "mlp.down_proj.weight").t());
  }
  const std::string head = c.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight";
  return norm(x, "model.norm.weight").mm(w(head).t());
}

}  // namespace

TEST_SUITE("nn") {
  TEST_CASE(
      "decoder: logits are those of the definition in float64, tied or not, windowed or not") {
    for (const bool tied : {false, true}) {
      for (const std::int64_t window : {0, 4}) {
        ModelConfig config = toy_config();
        config.tie_word_embeddings = tied;
        if (window > 0) config.sliding_window = window;
        auto model = toy_model(config);
        const Ids ids = random_ids(23, config.vocab_size, 5);
        const torch::NoGradGuard no_grad;
        CHECK(distance(model->forward(PackedInput::single(ids)),
                       logits_by_definition(*model, ids)) < 2e-6);
      }
    }
  }

  TEST_CASE("decoder: packed sequences give what each gives alone") {
    for (const std::int64_t window : {0, 5}) {
      ModelConfig config = toy_config();
      if (window > 0) config.sliding_window = window;
      auto model = toy_model(config);
      const auto sequences = ragged_sequences(config.vocab_size);
      const torch::NoGradGuard no_grad;
      const torch::Tensor packed = model->forward(PackedInput::pack(sequences));
      std::vector<torch::Tensor> alone;
      for (const Ids& ids : sequences) alone.push_back(model->forward(PackedInput::single(ids)));
      CHECK(distance(packed, torch::cat(alone, 0)) < 1e-6);
    }
  }

  TEST_CASE("decoder: changing one packed sequence leaves the logits of the others bit-identical") {
    auto model = toy_model();
    auto sequences = ragged_sequences(61);
    const torch::NoGradGuard no_grad;
    const torch::Tensor before = model->forward(PackedInput::pack(sequences));
    sequences[2] = random_ids(19, 61, 77);
    const torch::Tensor after = model->forward(PackedInput::pack(sequences));
    CHECK(torch::equal(before.slice(0, 0, 8), after.slice(0, 0, 8)));
    CHECK(torch::equal(before.slice(0, 27), after.slice(0, 27)));
    CHECK_FALSE(torch::equal(before.slice(0, 8, 27), after.slice(0, 8, 27)));
  }

  TEST_CASE("decoder: a token does not change the logits before it") {
    auto model = toy_model();
    Ids ids = random_ids(12, 61, 8);
    const torch::NoGradGuard no_grad;
    const torch::Tensor before = model->forward(PackedInput::single(ids));
    ids[9] = (ids[9] + 1) % 61;
    const torch::Tensor after = model->forward(PackedInput::single(ids));
    CHECK(torch::equal(before.slice(0, 0, 9), after.slice(0, 0, 9)));
    CHECK_FALSE(torch::equal(before[9], after[9]));
  }

  TEST_CASE("decoder: decoding with a cache gives the logits of the whole forward pass") {
    for (const std::int64_t window : {0, 6}) {
      ModelConfig config = toy_config();
      config.num_hidden_layers = 2;
      if (window > 0) config.sliding_window = window;
      auto model = toy_model(config);
      const Ids ids = random_ids(290, config.vocab_size, 6);  // beyond the first chunk of the cache
      const torch::NoGradGuard no_grad;
      const torch::Tensor whole = model->forward(PackedInput::single(ids));
      KvCache cache;
      const auto feed = [&](std::int64_t begin, std::int64_t end) {
        const Ids part(ids.begin() + begin, ids.begin() + end);
        return model->forward(PackedInput::single(part, cache.length()), &cache);
      };
      std::vector<torch::Tensor> parts = {feed(0, 240), feed(240, 243)};
      for (std::int64_t t = 243; t < 290; ++t) parts.push_back(feed(t, t + 1));
      CHECK(cache.length() == 290);
      CHECK(distance(torch::cat(parts, 0), whole) < 2e-6);
      // A shared prefix is reused: back to 280, the same tail again.
      REQUIRE(cache.can_truncate(280));
      cache.truncate(280);
      CHECK(distance(feed(280, 290), whole.slice(0, 280)) < 2e-6);
      cache.reset();
      CHECK(distance(feed(0, 5), whole.slice(0, 0, 5)) < 2e-6);
    }
  }

  TEST_CASE("decoder: wrong input is an error that names it") {
    auto model = toy_model();
    const torch::NoGradGuard no_grad;
    CHECK(contains(error_of([&] {
                     model->forward(PackedInput::single({3, 61}));
                   }),
                   "token id 61 at index 1 is outside the vocabulary of 61"));
    CHECK(contains(error_of([&] { model->forward(PackedInput::single({-1})); }), "token id -1"));
    CHECK(contains(error_of([&] { model->forward(PackedInput::single({})); }), "empty"));
    CHECK(contains(error_of([&] {
                     model->forward(PackedInput::pack({{1}, {}, {2}}));
                   }),
                   "sequence 1 is empty"));
    KvCache cache;
    CHECK(contains(error_of([&] {
                     model->forward(PackedInput::pack({{1}, {2}}), &cache);
                   }),
                   "one sequence; got 2"));
    CHECK(contains(error_of([&] { model->forward(PackedInput::single({1}, 5), &cache); }),
                   "first position is 5"));
    PackedInput input = PackedInput::single({1, 2, 3});
    input.cu_seqlens = {0, 2};
    CHECK(contains(error_of([&] { model->forward(input); }), "cu_seqlens"));
    input = PackedInput::single({1, 2, 3});
    input.positions = torch::zeros({2}, torch::kInt64);
    CHECK(contains(error_of([&] { model->forward(input); }), "positions"));
    input = PackedInput::single({1, 2, 3});
    input.ids = input.ids.to(torch::kInt32);
    CHECK(contains(error_of([&] { model->forward(input); }), "ids"));
  }

  TEST_CASE("decoder: every parameter gets a gradient, the one of a directional derivative") {
    ModelConfig config = toy_config();
    config.num_hidden_layers = 2;
    config.sliding_window = 3;
    auto model = toy_model(config);
    model->to(torch::kFloat64);
    const PackedInput input = PackedInput::pack(ragged_sequences(config.vocab_size));
    const auto loss = [&] { return model->forward(input).square().mean(); };
    loss().backward();
    const torch::NoGradGuard no_grad;
    for (const auto& item : model->named_parameters()) {
      CAPTURE(item.key());
      torch::Tensor parameter = item.value();
      const torch::Tensor direction =
          random_tensor(parameter.sizes(), 31, torch::kFloat64) / std::sqrt(parameter.numel());
      const double step = 1e-6;
      parameter.add_(direction, step);
      const double above = loss().item<double>();
      parameter.sub_(direction, 2 * step);
      const double below = loss().item<double>();
      parameter.add_(direction, step);
      const double numeric = (above - below) / (2 * step);
      CHECK((parameter.grad() * direction).sum().item<double>() ==
            doctest::Approx(numeric).epsilon(1e-5));
    }
  }

  TEST_CASE("decoder: bfloat16 logits are near float32's, and the mode changes nothing") {
    auto model = toy_model();
    const Ids ids = random_ids(30, 61, 9);
    const torch::NoGradGuard no_grad;
    model->train();
    const torch::Tensor wide = model->forward(PackedInput::single(ids));
    model->eval();
    CHECK(torch::equal(model->forward(PackedInput::single(ids)), wide));
    model->to(torch::kBFloat16);
    const torch::Tensor narrow = model->forward(PackedInput::single(ids));
    CHECK((narrow.scalar_type() == torch::kBFloat16));
    CHECK(distance(narrow, wide) < 0.05);
  }

  TEST_CASE("decoder: to(dtype) keeps a tied head tied") {
    ModelConfig config = toy_config();
    config.tie_word_embeddings = true;
    auto model = toy_model(config);
    model->to(torch::kBFloat16);
    CHECK(model->head()->dense_weight().data_ptr() ==
          model->model()->embed_tokens->weight().data_ptr());
  }

  TEST_CASE("from_config: a seed gives one model, norms are 1, and no global generator moves") {
    ModelConfig config = toy_config();
    config.attention_bias = true;
    config.mlp_bias = true;
    config.model_type = "llama";
    config.architectures = {"LlamaForCausalLM"};
    config.hidden_size = 120;
    const torch::Tensor state = at::detail::getDefaultCPUGenerator().get_state();
    const auto one = toy_model(config, 7), same = toy_model(config, 7),
               other = toy_model(config, 8);
    CHECK(torch::equal(at::detail::getDefaultCPUGenerator().get_state(), state));
    for (const auto& item : one->named_parameters()) {
      CAPTURE(item.key());
      CHECK(torch::equal(item.value(), same->named_parameters()[item.key()]));
      CHECK(item.value().requires_grad());
    }
    const torch::Tensor q = one->named_parameters()["model.layers.1.self_attn.q_proj.weight"];
    CHECK_FALSE(
        torch::equal(q, other->named_parameters()["model.layers.1.self_attn.q_proj.weight"]));
    CHECK(q.std().item<double>() == doctest::Approx(config.initializer_range).epsilon(0.05));
    CHECK(torch::equal(one->model()->norm->weight(), torch::ones({120})));
    CHECK(one->named_parameters()["model.layers.0.mlp.up_proj.bias"].abs().sum().item<double>() ==
          0);
    CHECK(num_parameters(*one) == count_parameters(config));
    config.hidden_size = 0;
    CHECK(contains(error_of([&] { toy_model(config); }), "hidden_size is 0"));
  }
}
