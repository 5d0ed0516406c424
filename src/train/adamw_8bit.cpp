// Moments in 8 bits: which tensors have them, the step, and bitsandbytes' form of them.
#include "train/adamw_8bit.hpp"

#include "kernels/rows_args.hpp"
#include "nn/row_kernels.hpp"

#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <string_view>

namespace lorapp::detail {

namespace {

constexpr const char* kOp = "adamw";
// bitsandbytes hides them there from those who would gather tensors of parameters' shapes.
constexpr const char* kBnbKey = "__bnb_optimizer_quant_state__";

std::int64_t moment_blocks(std::int64_t elements) {
  return (elements + kMomentBlock - 1) / kMomentBlock;
}

torch::Tensor tensor_of(const DynamicMap& map) {
  return at::tensor(at::ArrayRef<float>(map.value, 256));
}

}  // namespace

bool has_8bit_moments(const AdamW::Options& options,
                      const std::string& name,
                      const torch::Tensor& parameter) {
  return options.state_bits == 8 && parameter.numel() >= kLeast8bitElements &&
         !std::string_view(name).ends_with("embed_tokens.weight");
}

std::pair<torch::Tensor, torch::Tensor> zero_moment_8bit(const torch::Tensor& parameter,
                                                         std::uint8_t zero) {
  const auto on = torch::TensorOptions().device(parameter.device());
  return {at::full(parameter.sizes(), static_cast<int>(zero), on.dtype(torch::kUInt8)),
          at::zeros({moment_blocks(parameter.numel())}, on.dtype(torch::kFloat32))};
}

void step_8bit(const Moments8bit& of, const AdamWStep& constants) {
  float* p = of.values.mutable_data_ptr<float>();
  const float* g = of.gradient.const_data_ptr<float>();
  auto* m = of.m.mutable_data_ptr<std::uint8_t>();
  auto* v = of.v.mutable_data_ptr<std::uint8_t>();
  float* m_absmax = of.m_absmax.mutable_data_ptr<float>();
  float* v_absmax = of.v_absmax.mutable_data_ptr<float>();
  const std::int64_t count = of.values.numel();
  for_row_ranges(kOp, of.values.device(), moment_blocks(count), kMomentBlock,
                 [&](const auto& kernel, std::int64_t first, std::int64_t last) {
                   const std::int64_t begin = first * kMomentBlock;
                   const std::int64_t end = std::min(count, last * kMomentBlock);
                   kernel.adamw_8bit({p + begin, g + begin, m + begin, v + begin, m_absmax + first,
                                      v_absmax + first, end - begin, constants});
                 });
}

const TorchValue* find_bnb_moments(const TorchValue& entry) {
  const TorchValue* inner = entry.find(kBnbKey);
  if (inner != nullptr && inner->as<TorchDict>() != nullptr) return inner;
  return entry.find("state1") != nullptr ? &entry : nullptr;  // before it hid them
}

BnbMoments read_bnb_moments(const TorchFile& file,
                            const TorchValue& moments,
                            const std::string& name,
                            const BnbMoments& like,
                            Problems& problems) {
  const auto read = [&](const char* key, torch::IntArrayRef sizes,
                        torch::ScalarType dtype) -> torch::Tensor {
    const TorchValue* value = moments.find(key);
    const TorchTensor* tensor = value != nullptr ? value->tensor() : nullptr;
    if (tensor == nullptr || torch::IntArrayRef(tensor->sizes) != sizes || tensor->dtype != dtype) {
      problems.add(key, " of ", name, " is ", value == nullptr ? "nothing" : value->describe(),
                   "; expected a tensor ", sizes, " of ", dtype);
      return {};
    }
    try {
      return file.read(*tensor);
    } catch (const Error& error) {
      problems.add(key, " of ", name, ": ", error.what());
      return {};
    }
  };
  // What a step can give; NaN in a block of moments is no state to go on from.
  const auto check_values = [&](const char* key, const torch::Tensor& values, bool negative) {
    if (!values.defined()) return;
    if (!values.isfinite().all().item<bool>() || (!negative && values.lt(0).any().item<bool>())) {
      problems.add(key, " of ", name, " holds values that no run gives: not finite or negative");
    }
  };
  BnbMoments found;
  found.m = read("state1", like.m.sizes(), like.m.scalar_type());
  found.v = read("state2", like.v.sizes(), like.v.scalar_type());
  if (!like.m_absmax.defined()) {
    check_values("state1", found.m, true);
    check_values("state2", found.v, false);
    return found;
  }
  found.m_absmax = read("absmax1", like.m_absmax.sizes(), torch::kFloat32);
  found.v_absmax = read("absmax2", like.v_absmax.sizes(), torch::kFloat32);
  check_values("absmax1", found.m_absmax, false);
  check_values("absmax2", found.v_absmax, false);
  const auto check_map = [&](const char* key, const DynamicMap& map) {
    // PyTorch, with which they were made, differs in the last bit between processors.
    const torch::Tensor values = read(key, {256}, torch::kFloat32);
    if (values.defined() && !values.allclose(tensor_of(map), 1e-6, 0)) {
      problems.add(key, " of ", name, " is another map than bitsandbytes' dynamic one");
    }
  };
  check_map("qmap1", dynamic_map());
  check_map("qmap2", unsigned_dynamic_map());
  return found;
}

void write_bnb_moments(TorchWriter& out, const BnbMoments& moments) {
  const auto entry = [&](const char* key, const torch::Tensor& tensor) {
    out.text(key);
    out.tensor(tensor.to(torch::kCPU));
  };
  out.text(kBnbKey);
  out.begin_dict();
  entry("state1", moments.m);
  entry("state2", moments.v);
  if (moments.m_absmax.defined()) {
    entry("qmap1", tensor_of(dynamic_map()));
    entry("qmap2", tensor_of(unsigned_dynamic_map()));
    entry("absmax1", moments.m_absmax);
    entry("absmax2", moments.v_absmax);
  }
  out.end_dict();
}

}  // namespace lorapp::detail
