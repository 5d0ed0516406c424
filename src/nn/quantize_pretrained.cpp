// A model folder in 4 bits, tensor by tensor.
#include <lorapp/error.hpp>
#include <lorapp/nn/quantize_pretrained.hpp>

#include "atomic_file.hpp"
#include "nn/bnb_checkpoint.hpp"
#include "nn/model_folder.hpp"
#include "nn/weight_sources.hpp"

#include <string_view>

namespace lorapp {

namespace {

constexpr std::string_view kOp = "quantize";

}  // namespace

QuantizedFolder quantize_pretrained(const std::filesystem::path& dir,
                                    const std::filesystem::path& output_dir,
                                    const QuantizePretrainedOptions& options) {
  detail::check_new_or_empty(output_dir, kOp);
  const LoadOptions load{.quant_config = options.quant_config, .dtype = options.dtype};
  const auto model = detail::ModelFolder::open(dir, load);
  LORAPP_CHECK(!model.config.quantization_config, kOp, dir.string(),
               ": the weights are 4-bit already (quantization_config in config.json)");

  const torch::NoGradGuard no_grad;
  const detail::WeightReader reader(model, load);
  detail::AtomicDirectory folder(output_dir);
  CheckpointWriter writer(folder.path(), options.max_shard_bytes);
  QuantizedFolder result;
  torch::Dtype dtype = torch::kFloat32;
  for (const detail::WeightSource& source : model.sources) {
    if (reader.quantizes(source)) {
      const QuantizedTensor weight = reader.quantized(source);
      dtype = weight.dtype();
      writer.add(detail::bnb_tensors(source.spec.name, weight));
      ++result.quantized_weights;
    } else {
      LORAPP_CHECK(!source.is_4bit, kOp, source.name, " of ", dir.string(), " is 4-bit already");
      writer.add({{source.spec.name, reader.dense(source)}});
      ++result.dense_weights;
    }
  }
  LORAPP_CHECK(result.quantized_weights > 0, kOp, "skip_modules leaves no layer to quantize in ",
               dir.string());
  writer.finish();
  result.bytes = writer.num_bytes();
  detail::write_folder_config(dir, folder.path(), kOp,
                              {.quant_config = options.quant_config,
                               .dtype = dtype,
                               .tied = model.config.tie_word_embeddings});
  detail::copy_side_files(dir, folder.path(), kOp);
  folder.commit();
  return result;
}

}  // namespace lorapp
