// CausalLM::from_pretrained: checks a checkpoint against the model, then reads it tensor by tensor.
#include <lorapp/error.hpp>
#include <lorapp/nn/causal_lm.hpp>
#include <lorapp/nn/decoder.hpp>

#include "json_file.hpp"
#include "nn/quant_cache.hpp"
#include "nn/weight_slots.hpp"
#include "nn/weight_sources.hpp"
#include "torch_flags.hpp"

#include <memory>
#include <string>
#include <string_view>
#include <system_error>

namespace lorapp {

namespace {

constexpr std::string_view kOp = "load";

void read_weight(const detail::WeightReader& reader,
                 const detail::WeightSource& source,
                 const detail::WeightSlots& slots) {
  if (!source.is_4bit && !reader.quantizes(source)) {
    slots.set(source.spec.name, reader.dense(source));
    return;
  }
  LinearImpl* linear = slots.linear(detail::split_tensor_name(source.spec.name).first);
  LORAPP_CHECK(linear != nullptr, kOp, source.name, " is 4-bit; only linear layers can be");
  linear->set_quantized(reader.quantized(source), reader.compute_dtype());
}

// The weights of a folder in a model that is called `name`.
std::shared_ptr<DecoderLM> read_model(const detail::ModelFolder& folder,
                                      const std::string& name,
                                      const LoadOptions& options,
                                      bool maps) {
  auto model = std::make_shared<DecoderLM>(folder.config, name);
  const detail::WeightSlots slots(*model);
  const detail::WeightReader reader(folder, options, maps);
  // A view of the file ends with the tensor that it was read for, and its pages with it.
  for (const auto& source : folder.sources) read_weight(reader, source, slots);
  detail::tie_head(*model);
  if (options.head_8bit) model->quantize_head();
  return model;
}

// The same model by way of options.quant_cache.
std::shared_ptr<DecoderLM> read_cached_model(const detail::ModelFolder& folder,
                                             const LoadOptions& options) {
  const std::filesystem::path copy = detail::cached_quantized_folder(folder, options);
  try {
    auto cached = detail::ModelFolder::open(copy, options);
    cached.config.dtype = folder.config.dtype;  // none: each weight's own, as in the original
    return read_model(cached, folder.dir.string(), options, /*maps=*/true);
  } catch (const Error& error) {
    detail::fail(kOp,
                 "the quantized copy " + copy.string() + " of " + folder.dir.string() +
                     " is damaged; remove it, and the next start makes it again: " + error.what());
  }
}

}  // namespace

std::shared_ptr<CausalLM> CausalLM::from_pretrained(const std::filesystem::path& dir,
                                                    const LoadOptions& options) {
  detail::repair_torch_flags();  // memory that is not there must throw
  const auto folder = detail::ModelFolder::open(dir, options);
  const torch::NoGradGuard no_grad;
  const bool caches =
      !options.quant_cache.empty() && options.quant_config && !folder.config.quantization_config;
  const std::shared_ptr<DecoderLM> model =
      caches ? read_cached_model(folder, options)
             : read_model(folder, dir.string(), options, /*maps=*/false);

  const std::filesystem::path generation = dir / "generation_config.json";
  std::error_code ignored;  // a file that is there and cannot be read is read_text_file's error
  if (std::filesystem::exists(generation, ignored)) {
    model->set_generation_config(detail::read_text_file(generation, kOp));
  }
  return model;
}

}  // namespace lorapp
