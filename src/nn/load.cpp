// CausalLM::from_pretrained: checks a checkpoint against the model, then reads it tensor by tensor.
#include <lorapp/error.hpp>
#include <lorapp/io/checkpoint.hpp>
#include <lorapp/io/dtype.hpp>
#include <lorapp/nn/causal_lm.hpp>
#include <lorapp/nn/decoder.hpp>
#include <lorapp/quant/ops.hpp>

#include "json_file.hpp"
#include "nearest_names.hpp"
#include "nn/bnb_checkpoint.hpp"
#include "nn/weight_slots.hpp"

#include <algorithm>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace lorapp {

namespace {

constexpr std::string_view kOp = "load";
constexpr std::string_view kBasePrefix = "model.";
constexpr std::string_view kHead = "lm_head";

// Where a tensor of the model is in the files.
struct Source {
  TensorSpec spec;
  std::string name;      // in the files: spec.name, or without "model."
  bool is_4bit = false;  // as bitsandbytes stores it
};

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
  return name.ends_with(".rotary_emb.inv_freq") ||
         (config.tie_word_embeddings && name == std::string(kHead) + ".weight");
}

std::string text_of(const std::vector<std::int64_t>& shape) {
  return detail::concat(torch::IntArrayRef(shape));
}

bool is_float(const std::string& dtype) {
  return dtype == "F32" || dtype == "BF16" || dtype == "F16" || dtype == "F64";
}

// One problem a name, with the candidate it may have been meant for; a long list is cut, so that
// the other kinds of problems stay in sight.
void list_names(Problems& problems,
                const std::vector<std::string>& names,
                const std::vector<std::string>& candidates,
                const std::string& what,
                const std::string& hint) {
  constexpr std::size_t kMaxNames = 7;
  for (std::size_t i = 0; i < std::min(names.size(), kMaxNames); ++i) {
    const auto near = detail::nearest_names(names[i], candidates, 1);
    problems.add(names[i], what, near.empty() ? "" : "; " + hint + near.front());
  }
  if (names.size() > kMaxNames) {
    problems.add("the same holds for ", names.size() - kMaxNames, " more tensors");
  }
}

// The source of every tensor of the model; one Error lists all that is wrong.
std::vector<Source> match_tensors(const Checkpoint& checkpoint,
                                  const ModelConfig& config,
                                  const std::filesystem::path& dir) {
  const std::vector<TensorSpec> specs = expected_tensors(config);
  const bool bare = has_bare_names(checkpoint, specs);
  std::vector<Source> sources;
  std::set<std::string> known;
  std::vector<std::string> missing;
  bool any_4bit = false;
  Problems problems(std::string(kOp), dir.string());
  for (const TensorSpec& spec : specs) {
    Source source{spec, spec.name};
    if (bare && spec.name.starts_with(kBasePrefix)) source.name.erase(0, kBasePrefix.size());
    known.insert(source.name);
    if (!checkpoint.contains(source.name)) {
      missing.push_back(source.name);
      continue;
    }
    const TensorInfo& info = checkpoint.info(source.name);
    std::vector<std::int64_t> shape = info.shape;
    const std::vector<std::string> companions = detail::bnb_companions(checkpoint, source.name);
    if (!companions.empty()) {
      source.is_4bit = any_4bit = true;
      known.insert(companions.begin(), companions.end());
      const auto dense_shape = detail::bnb_shape(checkpoint, source.name, problems);
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
  list_names(problems, missing, unexpected, " is missing", "the nearest name in the files is ");
  list_names(problems, unexpected, missing, " is no tensor of this " + config.model_type + " model",
             "the nearest that is missing is ");
  problems.throw_if_any();
  return sources;
}

// Whether a skip_modules pattern means a module: whole names anywhere in its path, or the end of
// its path, as for transformers' llm_int8_skip_modules (regular expressions aside).
bool matches(const std::string& path, const std::string& pattern) {
  return path.ends_with(pattern) ||
         ("." + path + ".").find("." + pattern + ".") != std::string::npos;
}

void check_skip_modules(DecoderLM& model, const QuantConfig& quant) {
  std::vector<std::string> paths;
  for (const auto& module : model.named_modules({}, /*include_self=*/false)) {
    paths.push_back(module.key());
  }
  Problems problems("quant_config", "skip_modules");
  for (const std::string& pattern : quant.skip_modules) {
    if (!pattern.empty() && std::any_of(paths.begin(), paths.end(), [&](const std::string& path) {
          return matches(path, pattern);
        })) {
      continue;
    }
    problems.add("\"", pattern, "\" matches no module, such as model.layers.0.self_attn.q_proj");
  }
  problems.throw_if_any();
}

class Loader {
 public:
  Loader(const Checkpoint& checkpoint, const ModelConfig& config, const LoadOptions& options)
      : checkpoint_(checkpoint),
        dtype_(options.dtype ? options.dtype : config.dtype),
        device_(options.device) {
    const auto& quant = options.quant_config ? options.quant_config : config.quantization_config;
    if (quant) compute_dtype_ = quant->compute_dtype;
    // A folder that is 4-bit already stays as it is: what it left dense was left on purpose.
    if (!config.quantization_config) quant_ = options.quant_config;
  }

  void read(const Source& source, const detail::WeightSlots& slots) const {
    const auto [path, leaf] = detail::split_tensor_name(source.spec.name);
    LinearImpl* linear = slots.linear(path);
    if (source.is_4bit) {
      LORAPP_CHECK(linear != nullptr, kOp, source.name, " is 4-bit; only linear layers can be");
      linear->set_quantized(detail::read_bnb_weight(checkpoint_, source.name, device_),
                            compute_dtype_);
    } else if (linear != nullptr && leaf == "weight" && is_quantized(path)) {
      linear->set_quantized(quantize(source), compute_dtype_);
    } else {
      const torch::Tensor view = checkpoint_.view(source.name);
      slots.set(source.spec.name,
                view.to(device_, dtype_of(view), /*non_blocking=*/false, /*copy=*/true));
    }
  }

 private:
  torch::Dtype dtype_of(const torch::Tensor& view) const {
    return dtype_.value_or(view.scalar_type() == torch::kFloat64 ? torch::kFloat32
                                                                 : view.scalar_type());
  }

  bool is_quantized(const std::string& path) const {
    return quant_ && path != kHead &&
           std::none_of(quant_->skip_modules.begin(), quant_->skip_modules.end(),
                        [&](const std::string& pattern) { return matches(path, pattern); });
  }

  QuantizedTensor quantize(const Source& source) const {
    const torch::Tensor view = checkpoint_.view(source.name);
    const torch::Dtype dtype = dtype_of(view);
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
      detail::fail(kOp, source.name + ": " + error.what());
    }
  }

  const Checkpoint& checkpoint_;
  std::optional<torch::Dtype> dtype_;
  torch::Device device_;
  std::optional<QuantConfig> quant_;
  std::optional<torch::Dtype> compute_dtype_;
};

void check_options(const LoadOptions& options) {
  if (!options.dtype) return;
  LORAPP_CHECK(*options.dtype == torch::kFloat32 || *options.dtype == torch::kBFloat16 ||
                   *options.dtype == torch::kFloat16,
               kOp, "LoadOptions::dtype is ", *options.dtype,
               "; expected float32, bfloat16 or float16");
}

}  // namespace

std::shared_ptr<CausalLM> CausalLM::from_pretrained(const std::filesystem::path& dir,
                                                    const LoadOptions& options) {
  check_options(options);
  ModelConfig config = ModelConfig::from_pretrained(dir);
  const Checkpoint checkpoint = Checkpoint::open(dir);
  const std::vector<Source> sources = match_tensors(checkpoint, config, dir);

  const torch::NoGradGuard no_grad;
  auto model = std::make_shared<DecoderLM>(config, dir.string());
  if (options.quant_config && !config.quantization_config) {
    check_skip_modules(*model, *options.quant_config);
  }
  const detail::WeightSlots slots(*model);
  const Loader loader(checkpoint, config, options);
  // A view of the file ends with the tensor that it was read for, and its pages with it.
  for (const Source& source : sources) loader.read(source, slots);
  detail::tie_head(*model);

  const std::filesystem::path generation = dir / "generation_config.json";
  std::error_code ignored;  // a file that is there and cannot be read is read_text_file's error
  if (std::filesystem::exists(generation, ignored)) {
    model->set_generation_config(detail::read_text_file(generation, kOp));
  }
  return model;
}

}  // namespace lorapp
