// The weights of a model and an adapter summed, tensor by tensor, and measured on the way.
#include "atomic_file.hpp"
#include "model_outline.hpp"
#include "nn/bnb_checkpoint.hpp"
#include "nn/model_folder.hpp"
#include "nn/weight_sources.hpp"

#include <lorapp/error.hpp>
#include <lorapp/peft/merge_pretrained.hpp>
#include <lorapp/quant/ops.hpp>

#include <algorithm>
#include <cmath>
#include <system_error>
#include <utility>

namespace lorapp {

namespace {

constexpr const char* kOp = "merge";
// Elements that are summed and measured at once, in float32.
constexpr std::int64_t kChunk = std::int64_t{1} << 18;
constexpr std::string_view kOntoNames[] = {"original", "dequantized", "requantized"};

double squares(const torch::Tensor& values) {
  return values.square().sum(torch::kFloat64).item<double>();
}

// `output` and what is in it would be lost.
void check_apart(const std::filesystem::path& output, const std::filesystem::path& input) {
  std::error_code ignored;
  const auto inner = std::filesystem::weakly_canonical(input, ignored);
  const auto outer = std::filesystem::weakly_canonical(output, ignored);
  const auto [end, unused] = std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end());
  LORAPP_CHECK(end != outer.end(), kOp, "the output folder ", output.string(), " is ",
               input.string(), ", which is read, or a folder around it");
}

void check_output(const std::filesystem::path& output, bool overwrite) {
  if (!overwrite) return detail::check_new_or_empty(output, kOp);
  std::error_code ignored;
  LORAPP_CHECK(detail::is_new_or_empty(output, kOp) ||
                   std::filesystem::exists(output / "config.json", ignored),
               kOp, output.string(),
               ": holds no config.json, so it is no model folder, and is not overwritten");
}

// One of the weights of a model on its way into the new folder.
class Merge {
 public:
  Merge(const detail::WeightReader& reader,
        const detail::ModelOutline& outline,
        MergeReport& report,
        CheckpointWriter& writer)
      : reader_(reader), outline_(outline), report_(report), writer_(writer) {}

  void operator()(const detail::WeightSource& source) {
    const std::string& name = source.spec.name;
    const bool seen_in_4bit = source.is_4bit || reader_.quantizes(source);
    LORAPP_CHECK(!source.is_4bit || source.spec.is_linear_weight(), kOp, source.name,
                 " is 4-bit; only linear layers can be");
    const auto update = outline_.update_of(name);
    if (!seen_in_4bit && !update) return write_dense(name, reader_.dense(source));

    MergedWeight entry;
    entry.name = name;
    entry.shape = source.spec.shape;
    entry.changed = update.has_value();
    entry.quantized = seen_in_4bit && report_.onto == MergeOnto::requantized;
    QuantizedTensor quantized;
    if (seen_in_4bit) quantized = reader_.quantized(source);
    const torch::Tensor seen = seen_in_4bit ? dequantize_4bit(quantized) : reader_.dense(source);
    // What the sum starts from, where that is not what the adapter saw.
    const torch::Tensor original = seen_in_4bit && report_.onto == MergeOnto::original
                                       ? reader_.dense(source)
                                       : torch::Tensor();
    const torch::Dtype dtype =
        entry.quantized ? seen.scalar_type() : reader_.dtype_for(seen.scalar_type());
    torch::Tensor stored = torch::empty(seen.sizes(), dtype);
    sum_up(update, seen, original, stored);
    if (entry.quantized) {
      if (update) {
        quantized = quantize_4bit(stored, {.quant_type = quantized.quant_type(),
                                           .use_double_quant = quantized.is_nested(),
                                           .blocksize = quantized.blocksize()});
      }
      stored = dequantize_4bit(quantized);
    }
    measure(update, seen, stored, entry);
    LORAPP_CHECK(std::isfinite(entry.target_norm) && std::isfinite(entry.error_norm), kOp, name,
                 ": the sum is not finite in ", dtype);
    report_.changed_weights += entry.changed ? 1 : 0;
    report_.weights.push_back(std::move(entry));
    if (report_.weights.back().quantized) {
      writer_.add(detail::bnb_tensors(name, quantized));
      ++report_.quantized_weights;
    } else {
      write_dense(name, std::move(stored));
    }
  }

  torch::Dtype embedding_dtype() const noexcept { return embedding_dtype_; }

 private:
  using Update = std::optional<detail::WeightUpdate>;

  void write_dense(const std::string& name, torch::Tensor value) {
    if (name.ends_with("embed_tokens.weight")) embedding_dtype_ = value.scalar_type();
    writer_.add({{name, std::move(value)}});
    ++report_.dense_weights;
  }

  // Calls f(first row, one past the last) until all rows are done.
  template <class F>
  static void for_each_chunk(const torch::Tensor& rows, F&& f) {
    const std::int64_t count = rows.size(0);
    const std::int64_t step = std::max<std::int64_t>(1, kChunk * count / (rows.numel() + 1));
    for (std::int64_t begin = 0; begin < count; begin += step) {
      f(begin, std::min(count, begin + step));
    }
  }

  static void sum_up(const Update& update,
                     const torch::Tensor& seen,
                     const torch::Tensor& original,
                     torch::Tensor& stored) {
    const torch::Tensor& start = original.defined() ? original : seen;
    for_each_chunk(seen, [&](std::int64_t begin, std::int64_t end) {
      torch::Tensor rows = start.slice(0, begin, end).to(torch::kFloat32);
      if (update) rows = update->apply(rows, begin).first;
      stored.slice(0, begin, end).copy_(rows);
    });
  }

  static void measure(const Update& update,
                      const torch::Tensor& seen,
                      const torch::Tensor& stored,
                      MergedWeight& entry) {
    double sums[4] = {};
    for_each_chunk(seen, [&](std::int64_t begin, std::int64_t end) {
      const torch::Tensor rows = seen.slice(0, begin, end).to(torch::kFloat32);
      torch::Tensor target = rows;
      sums[0] += squares(rows);
      if (update) {
        auto [sum, delta] = update->apply(rows, begin);
        target = std::move(sum);
        sums[1] += squares(delta);
      }
      sums[2] += squares(target);
      const torch::Tensor error = stored.slice(0, begin, end).to(torch::kFloat32) - target;
      sums[3] += squares(error);
      entry.max_abs_error = std::max(entry.max_abs_error, error.abs().max().item<double>());
    });
    entry.seen_norm = std::sqrt(sums[0]);
    entry.update_norm = std::sqrt(sums[1]);
    entry.target_norm = std::sqrt(sums[2]);
    entry.error_norm = std::sqrt(sums[3]);
  }

  const detail::WeightReader& reader_;
  const detail::ModelOutline& outline_;
  MergeReport& report_;
  CheckpointWriter& writer_;
  torch::Dtype embedding_dtype_ = torch::kFloat32;
};

}  // namespace

std::string_view merge_onto_name(MergeOnto onto) {
  return kOntoNames[static_cast<std::size_t>(onto)];
}

MergeOnto parse_merge_onto(std::string_view name) {
  const auto* found = std::find(std::begin(kOntoNames), std::end(kOntoNames), name);
  LORAPP_CHECK(found != std::end(kOntoNames), kOp, "\"", name,
               "\" is not known; expected original, dequantized or requantized");
  return static_cast<MergeOnto>(found - std::begin(kOntoNames));
}

const MergedWeight* MergeReport::worst() const {
  const auto error = [](const MergedWeight& weight) {
    return weight.relative_error().value_or(weight.error_norm);
  };
  const auto found = std::max_element(
      weights.begin(), weights.end(),
      [&](const MergedWeight& a, const MergedWeight& b) { return error(a) < error(b); });
  return found == weights.end() ? nullptr : &*found;
}

MergeReport merge_pretrained(const std::filesystem::path& dir,
                             const std::filesystem::path& adapter_dir,
                             const std::filesystem::path& output_dir,
                             const MergeOptions& options) {
  check_output(output_dir, options.overwrite);
  check_apart(output_dir, dir);
  check_apart(output_dir, adapter_dir);
  const LoadOptions load{.quant_config = options.quant_config, .dtype = options.dtype};
  const auto folder = detail::ModelFolder::open(dir, load);
  const std::optional<QuantConfig>& own = folder.config.quantization_config;
  const std::optional<QuantConfig>& quant = own ? own : options.quant_config;
  MergeReport report;
  report.onto = options.onto.value_or(own ? MergeOnto::dequantized : MergeOnto::original);
  LORAPP_CHECK(report.onto != MergeOnto::original || !own, kOp, dir.string(),
               ": the weights are 4-bit, so there are no original ones to merge onto; expected "
               "dequantized or requantized");
  LORAPP_CHECK(report.onto == MergeOnto::original || quant, kOp, merge_onto_name(report.onto),
               " needs a quantization, but the weights in ", dir.string(),
               " are dense and quant_config is empty");

  const torch::NoGradGuard no_grad;
  const detail::WeightReader reader(folder, load);
  const detail::ModelOutline outline(folder, reader, adapter_dir);
  report.untied_head = outline.unties_head();
  detail::AtomicDirectory output(output_dir, options.overwrite
                                                 ? detail::AtomicDirectory::Existing::replace
                                                 : detail::AtomicDirectory::Existing::refuse);
  CheckpointWriter writer(output.path(), options.max_shard_bytes);
  Merge merge(reader, outline, report, writer);
  for (const detail::WeightSource& source : folder.sources) merge(source);
  if (report.untied_head) merge(outline.own_head());
  writer.finish();
  report.bytes = writer.num_bytes();
  const bool in_4bit = report.quantized_weights > 0;
  detail::write_folder_config(dir, output.path(), kOp,
                              {.quant_config = in_4bit ? quant : std::nullopt,
                               .dtype = merge.embedding_dtype(),
                               .tied = folder.config.tie_word_embeddings && !report.untied_head});
  detail::copy_side_files(dir, output.path(), kOp);
  output.commit();
  return report;
}

}  // namespace lorapp
