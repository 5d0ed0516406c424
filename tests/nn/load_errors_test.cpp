#include "nn/toy.hpp"

#include <lorapp/io/checkpoint.hpp>
#include <lorapp/io/safetensors.hpp>

#include "support/temporary_folder.hpp"

#include <string>

using namespace lorapp;
using namespace lorapp::test;

namespace {

// A saved toy model with one change to its tensors, and the Error of loading it.
std::string error_with(const std::function<void(NamedTensors&)>& change) {
  const TemporaryFolder folder;
  toy_model()->save_pretrained(folder / "m");
  NamedTensors tensors;
  {
    const Checkpoint checkpoint = Checkpoint::open(folder / "m");
    for (const std::string& name : checkpoint.names()) {
      tensors.emplace_back(name, checkpoint.view(name).clone());
    }
  }
  change(tensors);
  write_safetensors(folder / "m" / kWeightsName, tensors);
  return error_of([&] { CausalLM::from_pretrained(folder / "m"); });
}

}  // namespace

TEST_SUITE("nn") {
  TEST_CASE("from_pretrained: one error lists missing, unexpected and mis-shaped tensors") {
    const std::string message = error_with([](NamedTensors& tensors) {
      for (auto& [name, tensor] : tensors) {
        if (name == "model.layers.1.mlp.up_proj.weight") name = "model.layers.1.mlp.up_prj.weight";
        if (name == "model.layers.2.self_attn.k_proj.weight") tensor = torch::zeros({36, 20});
        if (name == "model.norm.weight") tensor = torch::zeros({36}, torch::kInt32);
      }
      tensors.emplace_back("model.layers.3.input_layernorm.weight", torch::zeros({36}));
    });
    CAPTURE(message);
    CHECK(contains(message,
                   "model.layers.1.mlp.up_proj.weight is missing; the nearest name in the "
                   "files is model.layers.1.mlp.up_prj.weight"));
    CHECK(contains(message, "model.layers.1.mlp.up_prj.weight is no tensor of this mistral model"));
    CHECK(contains(message,
                   "model.layers.2.self_attn.k_proj.weight has the shape [36, 20]; "
                   "config.json makes it [20, 36]"));
    CHECK(contains(message, "model.norm.weight is I32"));
    CHECK(contains(message, "model.layers.3.input_layernorm.weight is no tensor"));
    CHECK(contains(message, "5 problems"));
  }

  TEST_CASE("from_pretrained: a checkpoint of another model is one error, not a crash") {
    const std::string message = error_with([](NamedTensors& tensors) {
      tensors = {{"transformer.wte.weight", torch::zeros({3, 4})}};
    });
    CHECK(contains(message, "model.embed_tokens.weight is missing"));
    CHECK(contains(message, "transformer.wte.weight"));
    CHECK(contains(message, "more"));
  }

  TEST_CASE("from_pretrained: dense weights in a folder that claims to be 4-bit are an error") {
    const TemporaryFolder folder;
    toy_model()->save_pretrained(folder / "m");
    std::string text = read_file(folder / "m" / "config.json");
    text.insert(
        text.find('{') + 1,
        R"("quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": true},)");
    folder.write("m/config.json", text);
    CHECK(contains(
        error_of([&] { CausalLM::from_pretrained(folder / "m", {.quant_config = QuantConfig{}}); }),
        "config.json says that the weights are 4-bit"));
  }

  TEST_CASE("from_pretrained: an infinite weight that is to be quantized is named") {
    const TemporaryFolder folder;
    auto model = toy_model();
    {
      const torch::NoGradGuard no_grad;
      model->model()->layers[1]->mlp->gate_proj->dense_weight()[3][4] = INFINITY;
    }
    model->save_pretrained(folder / "m");
    CHECK(contains(
        error_of([&] { CausalLM::from_pretrained(folder / "m", {.quant_config = QuantConfig{}}); }),
        "model.layers.1.mlp.gate_proj.weight"));
  }

  TEST_CASE("from_pretrained: a dense weight that is not finite, or not in the dtype, is named") {
    const TemporaryFolder folder;
    for (const torch::Dtype dtype : {torch::kFloat32, torch::kBFloat16, torch::kFloat16}) {
      for (const float value : {INFINITY, -INFINITY, NAN}) {
        auto model = toy_model();
        {
          const torch::NoGradGuard no_grad;
          model->model()->norm->named_parameters()["weight"][7] = value;
        }
        model->to(dtype);
        model->save_pretrained(folder / "m");
        const std::string error =
            error_of([&] { CausalLM::from_pretrained(folder / "m", {.dtype = dtype}); });
        CHECK(contains(error, "model.norm.weight holds numbers that are not finite"));
      }
    }
    auto large = toy_model();
    {
      const torch::NoGradGuard no_grad;
      large->model()->norm->named_parameters()["weight"][7] = 1e30;
    }
    large->save_pretrained(folder / "large");
    CHECK(CausalLM::from_pretrained(folder / "large") != nullptr);
    CHECK(contains(
        error_of([&] { CausalLM::from_pretrained(folder / "large", {.dtype = torch::kFloat16}); }),
        "model.norm.weight holds numbers that are not finite once they are converted"));
  }

  TEST_CASE(
      "from_pretrained: a folder that is not there or not a model is an error that names it") {
    const TemporaryFolder folder;
    CHECK(contains(error_of([&] { CausalLM::from_pretrained(folder / "nowhere"); }), "nowhere"));
    CHECK(contains(error_of([&] { CausalLM::from_pretrained(folder.path()); }), "config.json"));
    // A name that no file system takes: std::filesystem would throw an exception of its own.
    const std::string too_long(300, 'x');
    CHECK(contains(error_of([&] { CausalLM::from_pretrained(folder / too_long); }), too_long));
    CHECK(contains(error_of([&] { toy_model()->save_pretrained(folder / too_long); }), too_long));
    toy_config().save(folder / "config.json");
    CHECK(
        contains(error_of([&] { CausalLM::from_pretrained(folder.path()); }), "model.safetensors"));
    folder.write("model.safetensors", "not a model");
    CHECK(
        contains(error_of([&] { CausalLM::from_pretrained(folder.path()); }), "model.safetensors"));
  }
}
