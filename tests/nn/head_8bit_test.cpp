// Weights in 8 bits in layers, and the head of a model: LoadOptions::head_8bit.
#include "nn/toy.hpp"

#include <lorapp/data/tokenizer.hpp>
#include <lorapp/nn/traverse.hpp>

#include "support/shared_data.hpp"
#include "support/temporary_folder.hpp"

#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

using namespace lorapp;
using namespace lorapp::test;

namespace {

// The largest difference of logits, in units of what codes may do: each stands for its weight
// within absmax / 254, so that a logit is off by sum |hidden| of these at most.
double worst_error(DecoderLM& model,
                   const Int8Weight& head,
                   const torch::Tensor& dense_logits,
                   const torch::Tensor& hidden) {
  const torch::Tensor error = (model.lm_head(hidden) - dense_logits).abs();
  const torch::Tensor sums = hidden.abs().sum(-1, /*keepdim=*/true);
  const torch::Tensor allowed = sums * head.absmax * ((1 + 1e-4) / 254) + sums * 1e-5;
  return (error / allowed).max().item<double>();
}

DecoderLM& decoder(const std::shared_ptr<CausalLM>& model) {
  return dynamic_cast<DecoderLM&>(*model);
}

PackedInput some_input() { return PackedInput::pack({random_ids(9, 61, 1), random_ids(4, 61, 2)}); }

}  // namespace

TEST_SUITE("nn") {
  TEST_CASE("linear: an 8-bit weight is no parameter, counts once, and to(dtype) leaves it") {
    const torch::Tensor weight = random_tensor({7, 9}, 1);
    Linear linear(9, 7);
    linear->set_bias(random_tensor({7}, 2));
    linear->set_int8(quantize_int8(weight));
    CHECK(linear->is_int8());
    CHECK(linear->has_weight());
    CHECK_FALSE(linear->is_dense());
    CHECK_FALSE(linear->is_quantized());
    CHECK(linear->parameters().size() == 1);  // the bias
    CHECK(num_parameters(*linear) == 7 * 9 + 7);
    const torch::Tensor x = random_tensor({4, 9}, 3);
    const torch::Tensor y = linear(x);
    CHECK(distance(y, at::linear(x, linear->dense_weight(), linear->bias())) < 1e-6);
    struct Parent : torch::nn::Module {};
    auto parent = std::make_shared<Parent>();
    parent->register_module("linear", linear);
    const torch::Tensor codes = linear->int8().codes.clone();
    parent->to(torch::kBFloat16);
    CHECK((linear->bias().scalar_type() == torch::kBFloat16));
    CHECK(torch::equal(linear->int8().codes, codes));
    CHECK((linear->int8().absmax.scalar_type() == torch::kFloat32));
    linear->set_int8(quantize_int8(weight), /*is_copy=*/true);
    CHECK(num_parameters(*linear) == 7);
    CHECK(contains(error_of([&] { linear->quantized(); }), "8-bit, not 4-bit"));
    CHECK(contains(error_of([&] {
                     linear->set_int8(quantize_int8(random_tensor({9, 7}, 1)));
                   }),
                   "expected [7, 9]"));
    linear->set_dense(weight);
    CHECK_FALSE(linear->is_int8());
    CHECK(contains(error_of([&] { linear->int8(); }), "dense, not 8-bit"));
    linear->set_int8(quantize_int8(weight));
    linear->set_quantized(quantize_4bit(weight), torch::kFloat32);
    CHECK_FALSE(linear->is_int8());
  }

  TEST_CASE("head_8bit: logits are near the dense head's, tied or not, dense or in 4 bits") {
    const torch::NoGradGuard no_grad;
    for (const bool tied : {false, true}) {
      ModelConfig config = toy_config();
      config.tie_word_embeddings = tied;
      const TemporaryFolder folder;
      toy_model(config)->save_pretrained(folder / "model");
      for (const bool in_4bit : {false, true}) {
        LoadOptions options;
        if (in_4bit) options.quant_config = QuantConfig{.compute_dtype = torch::kFloat32};
        const auto dense = CausalLM::from_pretrained(folder / "model", options);
        options.head_8bit = true;
        const auto model = CausalLM::from_pretrained(folder / "model", options);
        Linear& head = decoder(model).head();
        REQUIRE(head->is_int8());
        CHECK(head->int8_is_copy() == tied);
        CHECK(torch::equal(decoder(model).model()->embed_tokens->weight(),
                           decoder(dense).model()->embed_tokens->weight()));
        CHECK(num_parameters(*model) == num_parameters(*dense));
        CHECK_FALSE(model->named_parameters().contains("lm_head.weight"));
        const torch::Tensor hidden = dense->hidden_states(some_input());
        CHECK(torch::equal(model->hidden_states(some_input()), hidden));
        const torch::Tensor want = dense->lm_head(hidden);
        CHECK(worst_error(decoder(model), head->int8(), want, hidden) < 1);
        CHECK_FALSE(torch::equal(model->lm_head(hidden), want));
        CHECK(worst_error(decoder(model), head->int8(), want.slice(0, 3, 4),
                          hidden.slice(0, 3, 4)) < 1);
      }
    }
  }

  TEST_CASE("head_8bit: gradients reach the hidden states as through the dequantized head") {
    const auto model = toy_model();
    const torch::Tensor hidden = random_tensor({13, 36}, 5);
    const torch::Tensor dy = random_tensor({13, 61}, 6);
    const auto gradient = [&](auto&& logits) {
      torch::Tensor x = hidden.clone().requires_grad_();
      logits(x).backward(dy);
      return x.grad();
    };
    model->quantize_head();
    const torch::Tensor values = model->head()->dense_weight();
    const torch::Tensor got = gradient([&](const torch::Tensor& x) { return model->lm_head(x); });
    CHECK(distance(got, gradient([&](const torch::Tensor& x) { return at::linear(x, values); })) <
          1e-6);
  }

  TEST_CASE("head_8bit: a tied model is written as it was read; an untied one is refused") {
    const TemporaryFolder folder;
    ModelConfig config = toy_config();
    config.tie_word_embeddings = true;
    toy_model(config)->save_pretrained(folder / "tied");
    const auto tied = CausalLM::from_pretrained(folder / "tied", {.head_8bit = true});
    tied->save_pretrained(folder / "again");
    CHECK(read_file(folder / "again" / "model.safetensors") ==
          read_file(folder / "tied" / "model.safetensors"));
    toy_model()->save_pretrained(folder / "model");
    const auto model = CausalLM::from_pretrained(folder / "model", {.head_8bit = true});
    CHECK(contains(error_of([&] { model->save_pretrained(folder / "none"); }),
                   "lm_head.weight is 8-bit"));
    CHECK_FALSE(std::filesystem::exists(folder / "none"));
  }

  TEST_CASE("head_8bit: what cannot be put into 8 bits is an error that names it") {
    const auto model = toy_model();
    model->quantize_head();
    CHECK(contains(error_of([&] { model->quantize_head(); }), "8-bit weight already"));
    DecoderLM empty(toy_config());
    CHECK(contains(error_of([&] { empty.quantize_head(); }), "no weight yet"));
    const auto other = toy_model();
    other->head()->set_quantized(quantize_4bit(other->head()->dense_weight().detach()));
    CHECK(contains(error_of([&] { other->quantize_head(); }), "a 4-bit weight"));
    const auto broken = toy_model();
    {
      const torch::NoGradGuard no_grad;
      broken->head()->dense_weight()[3][4] = NAN;
    }
    CHECK(contains(error_of([&] { broken->quantize_head(); }), "lm_head.weight[3, 4] is nan"));
    CHECK(broken->head()->is_dense());
  }

  TEST_CASE("head_8bit: stories260K keeps its perplexity within 0.5 %") {
    LORAPP_NEEDS_SHARED_DATA(folder, "models/stories260K");
    const auto dense = CausalLM::from_pretrained(folder);
    const auto model = CausalLM::from_pretrained(folder, {.head_8bit = true});
    const Tokenizer tokenizer = Tokenizer::from_pretrained(folder);
    const auto ids = tokenizer.encode(read_file(folder / "greedy_200_expected.txt"));
    const torch::NoGradGuard no_grad;
    const torch::Tensor hidden = dense->hidden_states(PackedInput::single(ids));
    const torch::Tensor want = dense->lm_head(hidden);
    CHECK(worst_error(decoder(model), decoder(model).head()->int8(), want, hidden) < 1);
    const auto loss = [&](const torch::Tensor& logits) {
      const auto count = static_cast<std::int64_t>(ids.size());
      return torch::cross_entropy_loss(logits.slice(0, 0, count - 1),
                                       torch::tensor(ids).slice(0, 1))
          .item<double>();
    };
    const double ours = loss(model->lm_head(hidden));
    MESSAGE("loss with the head in 8 bits ", ours, ", dense ", loss(want));
    CHECK(std::abs(std::exp(ours - loss(want)) - 1) < 5e-3);
  }
}
