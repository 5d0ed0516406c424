// Matching a checkpoint's tensors with a model's, reading and quantizing them one by one.
#include "nn/weight_sources.hpp"

#include <lorapp/error.hpp>
#include <lorapp/io/checkpoint.hpp>
#include <lorapp/quant/ops.hpp>

#include "nearest_names.hpp"
#include "nn/bnb_checkpoint.hpp"
#include "nn/tensor_name.hpp"

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <set>
#include <utility>

namespace lorapp::detail {

namespace {

constexpr std::string_view kOp = "load";
constexpr std::string_view kBasePrefix = "model.";

// A decoder that was saved without its head has names without "model.".
bool has_bare_names(const Checkpoint& checkpoint, const std::vector<TensorSpec>& specs) {
  return std::none_of(specs.begin(), specs.end(),
                      [&](const TensorSpec& spec) {
                        return spec.name.starts_with(kBasePrefix) && checkpoint.contains(spec.name);
                      }) &&
         std::any_of(specs.begin(), specs.end(), [&](const TensorSpec& spec) {
           return spec.name.starts_with(kBasePrefix) &&
                  checkpoint.contains(spec.name.substr(kBasePrefix.size()));
         });
}

// Tensors that old checkpoints carry and no model reads.
bool is_ignored(const std::string& name, const ModelConfig& config) {
  return ("." + name).ends_with(".rotary_emb.inv_freq") ||
         (config.tie_word_embeddings && name == std::string(kHead) + ".weight");
}

std::string text_of(const std::vector<std::int64_t>& shape) {
  return concat(torch::IntArrayRef(shape));
}

// One problem a name, with the candidate it may have been meant for; a long list is cut, so that
// the other kinds of problems stay in sight.
void add_names(Problems& problems,
               const std::vector<std::string>& names,
               const std::vector<std::string>& candidates,
               const std::string& what,
               const std::string& hint) {
  constexpr std::size_t kMaxNames = 7;
  for (std::size_t i = 0; i < std::min(names.size(), kMaxNames); ++i) {
    const auto near = nearest_names(names[i], candidates, 1);
    problems.add(names[i], what, near.empty() ? "" : "; " + hint + near.front());
  }
  if (names.size() > kMaxNames) {
    problems.add("the same holds for ", names.size() - kMaxNames, " more tensors");
  }
}

// Whether no number has all bits of its exponent set.
template <class Word>
bool all_finite(const torch::Tensor& weight, Word exponent) {
  const auto* words = static_cast<const Word*>(weight.const_data_ptr());
  std::atomic<bool> finite = true;
  at::parallel_for(0, weight.numel(), 1 << 16, [&](std::int64_t begin, std::int64_t end) {
    Word bad = 0;
    for (std::int64_t i = begin; i < end; ++i) {
      bad = static_cast<Word>(bad | ((words[i] & exponent) == exponent));
    }
    if (bad != 0) finite = false;
  });
  return finite;
}

bool all_finite(const torch::Tensor& weight) {
  switch (weight.scalar_type()) {
    case torch::kBFloat16:
      return all_finite<std::uint16_t>(weight, 0x7f80);
    case torch::kFloat16:
      return all_finite<std::uint16_t>(weight, 0x7c00);
    default:
      return all_finite<std::uint32_t>(weight, 0x7f800000);
  }
}

// Where the files hold both the embedding and a head that differs from it, the two are not tied,
// whatever config.json says: as in transformers 5.
void untie_own_head(ModelConfig& config, const Checkpoint& checkpoint) {
  const std::string head = std::string(kHead) + ".weight";
  if (!config.tie_word_embeddings || !checkpoint.contains(head)) return;
  for (const std::string embedding : {"model.embed_tokens.weight", "embed_tokens.weight"}) {
    if (!checkpoint.contains(embedding)) continue;
    const TensorInfo& left = checkpoint.info(head);
    const TensorInfo& right = checkpoint.info(embedding);
    config.tie_word_embeddings = left.dtype == right.dtype && left.shape == right.shape &&
                                 torch::equal(checkpoint.view(head), checkpoint.view(embedding));
    return;
  }
}

// The source of every tensor of the model; one Error lists every missing, unexpected and mis-shaped
// tensor of `dir`.
std::vector<WeightSource> match_weights(const Checkpoint& checkpoint,
                                        const ModelConfig& config,
                                        const std::filesystem::path& dir) {
  const std::vector<TensorSpec> specs = expected_tensors(config);
  const bool bare = has_bare_names(checkpoint, specs);
  std::vector<WeightSource> sources;
  std::set<std::string> known;
  std::vector<std::string> missing;
  bool any_4bit = false;
  Problems problems(std::string(kOp), dir.string());
  for (const TensorSpec& spec : specs) {
    WeightSource source{spec, spec.name};
    if (bare && spec.name.starts_with(kBasePrefix)) source.name.erase(0, kBasePrefix.size());
    known.insert(source.name);
    if (!checkpoint.contains(source.name)) {
      missing.push_back(source.name);
      continue;
    }
    const TensorInfo& info = checkpoint.info(source.name);
    std::vector<std::int64_t> shape = info.shape;
    const std::vector<std::string> companions = bnb_companions(checkpoint, source.name);
    if (!companions.empty()) {
      source.is_4bit = any_4bit = true;
      known.insert(companions.begin(), companions.end());
      const auto dense_shape = bnb_shape(checkpoint, source.name, problems);
      if (!dense_shape) continue;
      shape = *dense_shape;
    } else if (!is_float(info.dtype)) {
      problems.add(source.name, " is ", info.dtype, "; expected F32, BF16, F16 or F64");
    }
    if (shape != spec.shape) {
      problems.add(source.name, " has the shape ", text_of(shape), "; config.json makes it ",
                   text_of(spec.shape));
    }
    sources.push_back(std::move(source));
  }
  if (config.quantization_config && !any_4bit) {
    problems.add(
        "config.json says that the weights are 4-bit (quantization_config), but the files hold "
        "none with a quant_state.bitsandbytes__nf4 or __fp4");
  }
  std::vector<std::string> unexpected;
  for (const std::string& name : checkpoint.names()) {
    if (!known.contains(name) && !is_ignored(name, config)) unexpected.push_back(name);
  }
  add_names(problems, missing, unexpected, " is missing", "the nearest name in the files is ");
  add_names(problems, unexpected, missing, " is no tensor of this " + config.model_type + " model",
            "the nearest that is missing is ");
  problems.throw_if_any();
  return sources;
}

// Throws one Error that lists the skip_modules that match none of a model's modules.
void check_skip_modules(const ModelConfig& config, const QuantConfig& quant) {
  // Every module that holds a weight; a pattern for one of the others matches one of these too.
  std::vector<std::string> paths = {std::string(kHead)};
  for (const TensorSpec& spec : expected_tensors(config)) {
    paths.push_back(split_tensor_name(spec.name).first);
  }
  const auto matches_one = [&](const std::string& pattern) {
    return std::any_of(paths.begin(), paths.end(),
                       [&](const std::string& path) { return matches_skip_module(path, pattern); });
  };
  Problems problems("quant_config", "skip_modules");
  for (const std::string& pattern : quant.skip_modules) {
    if (!pattern.empty() && matches_one(pattern)) continue;
    problems.add("\"", pattern, "\" matches no module, such as model.layers.0.self_attn.q_proj");
  }
  problems.throw_if_any();
}

// Throws Error unless options.dtype is one that weights may have.
void check_load_options(const LoadOptions& options) {
  if (!options.dtype) return;
  LORAPP_CHECK(*options.dtype == torch::kFloat32 || *options.dtype == torch::kBFloat16 ||
                   *options.dtype == torch::kFloat16,
               kOp, "LoadOptions::dtype is ", *options.dtype,
               "; expected float32, bfloat16 or float16");
}

}  // namespace

bool is_float(const std::string& dtype) {
  return dtype == "F32" || dtype == "BF16" || dtype == "F16" || dtype == "F64";
}

bool matches_skip_module(const std::string& path, const std::string& pattern) {
  return path.ends_with(pattern) ||
         ("." + path + ".").find("." + pattern + ".") != std::string::npos;
}

ModelFolder ModelFolder::open(const std::filesystem::path& dir, const LoadOptions& options) {
  check_load_options(options);
  ModelConfig config = ModelConfig::from_pretrained(dir);
  Checkpoint checkpoint = Checkpoint::open(dir);
  untie_own_head(config, checkpoint);
  std::vector<WeightSource> sources = match_weights(checkpoint, config, dir);
  if (options.quant_config && !config.quantization_config) {
    check_skip_modules(config, *options.quant_config);
  }
  return {dir, std::move(config), std::move(checkpoint), std::move(sources)};
}

WeightReader::WeightReader(const ModelFolder& folder, const LoadOptions& options, bool maps)
    : checkpoint_(folder.checkpoint),
      dtype_(options.dtype ? options.dtype : folder.config.dtype),
      device_(options.device),
      maps_(maps) {
  const auto& stored = folder.config.quantization_config;
  const auto& quant = options.quant_config ? options.quant_config : stored;
  if (quant) compute_dtype_ = quant->compute_dtype;
  // A folder that is 4-bit already stays as it is: what it left dense was left on purpose.
  if (!stored) quant_ = options.quant_config;
}

torch::Dtype WeightReader::dtype_for(torch::Dtype stored) const {
  return dtype_.value_or(stored == torch::kFloat64 ? torch::kFloat32 : stored);
}

bool WeightReader::quantizes(const WeightSource& source) const {
  if (!quant_ || source.is_4bit || !source.spec.is_linear_weight()) return false;
  const std::string path = split_tensor_name(source.spec.name).first;
  return path != kHead && std::none_of(quant_->skip_modules.begin(), quant_->skip_modules.end(),
                                       [&](const std::string& pattern) {
                                         return matches_skip_module(path, pattern);
                                       });
}

QuantizedTensor WeightReader::quantized(const WeightSource& source) const {
  if (source.is_4bit) return read_bnb_weight(checkpoint_, source.name, device_, maps_);
  const torch::Tensor view = checkpoint_.view(source.name);
  const torch::Dtype dtype = dtype_for(view.scalar_type());
  try {
    // Widening to float32 changes no value, so the copy in float32 need not exist: the codes are
    // the same, and only the dtype that dequantized values are rounded to is set.
    if (dtype == torch::kFloat32 && view.element_size() == 2) {
      QuantizedTensor::Parts parts = quantize_4bit(view.to(device_), *quant_).parts();
      parts.dtype = dtype;
      return QuantizedTensor::from_parts(std::move(parts), source.name);
    }
    return quantize_4bit(view.to(device_, dtype), *quant_);
  } catch (const Error& error) {
    fail(kOp, source.name + ": " + error.what());
  }
}

torch::Tensor WeightReader::dense(const WeightSource& source) const {
  const torch::Tensor view = checkpoint_.view(source.name);
  const torch::Dtype dtype = dtype_for(view.scalar_type());
  const torch::Tensor weight = view.to(dtype, /*non_blocking=*/false, /*copy=*/true);
  // Found here, it has a name; later it is a NaN somewhere, which attention may even swallow.
  LORAPP_CHECK(all_finite(weight), kOp, source.name, " holds numbers that are not finite",
               dtype == view.scalar_type()
                   ? std::string()
                   : concat(" once they are converted from ", view.scalar_type(), " to ", dtype));
  return weight.to(device_);
}

}  // namespace lorapp::detail
