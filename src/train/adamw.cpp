// AdamW: one pass over gradients, moments and parameters.
#include "kernels/rows_args.hpp"
#include "nn/row_kernels.hpp"
#include "train/adamw_8bit.hpp"

#include <lorapp/error.hpp>
#include <lorapp/io/safetensors.hpp>
#include <lorapp/train/adamw.hpp>

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <regex>
#include <set>
#include <tuple>
#include <utility>

namespace lorapp {

namespace {

constexpr const char* kOp = "adamw";
constexpr const char* kStepKey = "step";
constexpr const char* kBitsKey = "state_bits";  // in files with other moments than float32
// A sum of this many squares is taken in order, so that the norm does not depend on the threads.
constexpr std::int64_t kNormBlock = 65536;

// Waits for the sum.
double gpu_sum_of_squares(const torch::Tensor& x) {
  const detail::GpuScope scope(x.device(), kOp);
  const torch::Tensor sums =
      at::empty({kernels::cuda::kPartialSums + 1}, x.options().dtype(torch::kFloat64));
  auto* partial = sums.mutable_data_ptr<double>();
  double* total = partial + kernels::cuda::kPartialSums;
  scope.check(scope.kernels().sum_of_squares(x.const_data_ptr<float>(), x.numel(), partial, total,
                                             scope.stream()),
              "sum_of_squares", x.numel(), " elements");
  return sums[kernels::cuda::kPartialSums].item<double>();
}

}  // namespace

bool has_weight_decay(const std::string& parameter_name) {
  static const std::regex no_decay(R"(bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.))",
                                   std::regex::icase);
  return !std::regex_search(parameter_name, no_decay);
}

AdamW::AdamW(std::vector<std::pair<std::string, torch::Tensor>> parameters, Options options)
    : options_(options) {
  Problems problems(kOp, "parameters");
  std::int64_t total = 0, total_wide = 0;  // with moments in float32
  std::set<std::string> names;
  for (const auto& [name, parameter] : parameters) {
    if (!names.insert(name).second) problems.add(name, " is there twice");
    if (!parameter.defined()) {
      problems.add(name, " is undefined");
      continue;
    }
    if (!parameter.is_floating_point()) {
      problems.add(name, " has the type ", parameter.scalar_type(), "; expected a floating type");
    }
    if (parameter.device() != parameters.front().second.device()) {
      problems.add(name, " is on ", parameter.device(), ", ", parameters.front().first, " on ",
                   parameters.front().second.device(), "; expected one device");
    }
    if (!parameter.is_contiguous()) problems.add(name, " is not contiguous");
    total += parameter.numel();
    if (!detail::has_8bit_moments(options_, name, parameter)) total_wide += parameter.numel();
  }
  if (parameters.empty()) problems.add("there are none");
  if (options_.state_bits != 32 && options_.state_bits != 8) {
    problems.add("state_bits is ", options_.state_bits, "; expected 32 or 8");
  }
  problems.throw_if_any();
  const torch::Device device = parameters.front().second.device();
  detail::check_device(device, kOp);

  const auto f32 = torch::TensorOptions().dtype(torch::kFloat32).device(device);
  gradients_ = at::zeros({total}, f32);
  moments_ = at::zeros({2, total_wide}, f32);
  std::int64_t begin = 0, begin_wide = 0;
  for (auto& [name, parameter] : parameters) {
    const std::int64_t end = begin + parameter.numel();
    Slot slot;
    const bool narrow = detail::has_8bit_moments(options_, name, parameter);
    slot.weight_decay = has_weight_decay(name) ? options_.weight_decay : 0;
    slot.name = std::move(name);
    slot.gradient = gradients_.slice(0, begin, end).view(parameter.sizes());
    if (narrow) {
      std::tie(slot.m, slot.m_absmax) = detail::zero_moment_8bit(parameter, kZeroOfFirstMoment);
      std::tie(slot.v, slot.v_absmax) = detail::zero_moment_8bit(parameter, kZeroOfSecondMoment);
    } else {
      const std::int64_t end_wide = begin_wide + parameter.numel();
      slot.m = moments_[0].slice(0, begin_wide, end_wide).view(parameter.sizes());
      slot.v = moments_[1].slice(0, begin_wide, end_wide).view(parameter.sizes());
      begin_wide = end_wide;
    }
    if (parameter.scalar_type() == torch::kFloat32) {
      parameter.mutable_grad() = slot.gradient;
    } else {
      slot.master = parameter.detach().to(torch::kFloat32, /*non_blocking=*/false, /*copy=*/true);
      parameter.mutable_grad() = torch::Tensor();
    }
    slot.parameter = std::move(parameter);
    slots_.push_back(std::move(slot));
    begin = end;
  }
}

AdamW::~AdamW() {
  for (Slot& slot : slots_) slot.parameter.mutable_grad() = torch::Tensor();
}

void AdamW::zero_grad() {
  gradients_.zero_();
  for (Slot& slot : slots_) {
    if (slot.master.defined()) {
      slot.parameter.mutable_grad() = torch::Tensor();
    } else {
      slot.parameter.mutable_grad() = slot.gradient;  // in case someone took the gradient away
    }
  }
}

void AdamW::accumulate() {
  const torch::NoGradGuard no_grad;
  for (Slot& slot : slots_) {
    torch::Tensor& gradient = slot.parameter.mutable_grad();
    if (slot.master.defined()) {
      if (gradient.defined()) slot.gradient.add_(gradient);
      gradient = torch::Tensor();
    } else if (!gradient.is_same(slot.gradient)) {
      LORAPP_CHECK(gradient.defined(), kOp, "the gradient of ", slot.name, " was taken away");
      slot.gradient.add_(gradient);
      gradient = slot.gradient;
    }
  }
}

double AdamW::grad_norm() const {
  if (detail::on_gpu(gradients_.device())) return std::sqrt(gpu_sum_of_squares(gradients_));
  const float* g = gradients_.const_data_ptr<float>();
  const std::int64_t count = gradients_.numel();
  const std::int64_t blocks = (count + kNormBlock - 1) / kNormBlock;
  std::vector<double> sums(static_cast<std::size_t>(blocks));
  const kernels::KernelTable& kernel = detail::kernel_table();
  at::parallel_for(0, blocks, 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t block = first; block < last; ++block) {
      const std::int64_t begin = block * kNormBlock;
      sums[static_cast<std::size_t>(block)] =
          kernel.sum_of_squares(g + begin, std::min(kNormBlock, count - begin));
    }
  });
  double total = 0;
  for (const double sum : sums) total += sum;
  return std::sqrt(total);
}

void AdamW::step(double learning_rate, double clip) {
  const torch::NoGradGuard no_grad;
  ++num_steps_;
  const auto t = static_cast<double>(num_steps_);
  const double bias_correction1 = 1 - std::pow(options_.beta1, t);
  const double bias_correction2 = 1 - std::pow(options_.beta2, t);
  for (Slot& slot : slots_) {
    const AdamWStep constants{
        .decay = static_cast<float>(1 - learning_rate * slot.weight_decay),
        .beta2 = static_cast<float>(options_.beta2),
        .one_minus_beta1 = static_cast<float>(1 - options_.beta1),
        .one_minus_beta2 = static_cast<float>(1 - options_.beta2),
        .bias_correction2_sqrt = static_cast<float>(std::sqrt(bias_correction2)),
        .step_size = static_cast<float>(learning_rate / bias_correction1),
        .eps = static_cast<float>(options_.eps),
        .clip = static_cast<float>(clip),
    };
    torch::Tensor& values = slot.master.defined() ? slot.master : slot.parameter;
    float* p = values.mutable_data_ptr<float>();
    const float* g = slot.gradient.const_data_ptr<float>();
    if (slot.m_absmax.defined()) {
      detail::step_8bit({values, slot.gradient, slot.m, slot.v, slot.m_absmax, slot.v_absmax},
                        constants);
    } else {
      float* m = slot.m.mutable_data_ptr<float>();
      float* v = slot.v.mutable_data_ptr<float>();
      detail::for_row_ranges(
          kOp, values.device(), values.numel(), 1,
          [&](const auto& kernel, std::int64_t begin, std::int64_t end) {
            kernel.adamw({p + begin, g + begin, m + begin, v + begin, end - begin, constants});
          });
    }
    if (slot.master.defined()) slot.parameter.copy_(slot.master);
  }
}

NamedTensors AdamW::stored_tensors() const {
  NamedTensors tensors;
  for (const Slot& slot : slots_) {
    const auto add = [&](const char* kind, const torch::Tensor& tensor) {
      if (tensor.defined()) tensors.emplace_back(std::string(kind) + "." + slot.name, tensor);
    };
    add("exp_avg", slot.m);
    add("exp_avg_sq", slot.v);
    add("exp_avg_absmax", slot.m_absmax);
    add("exp_avg_sq_absmax", slot.v_absmax);
    add("master", slot.master);
  }
  return tensors;
}

void AdamW::save(const std::filesystem::path& path) const {
  std::map<std::string, std::string> metadata = {{"format", "pt"},
                                                 {kStepKey, std::to_string(num_steps_)}};
  if (options_.state_bits != 32) metadata[kBitsKey] = std::to_string(options_.state_bits);
  write_safetensors(path, stored_tensors(), metadata);
}

void AdamW::load(const std::filesystem::path& path) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  const auto metadata = [&](const char* key, const char* otherwise) {
    const auto entry = file.metadata().find(key);
    return entry == file.metadata().end() ? otherwise : entry->second;
  };
  const std::string bits = metadata(kBitsKey, "32");
  LORAPP_CHECK(bits == std::to_string(options_.state_bits), kOp, path.string(),
               " keeps moments in ", bits, " bits and this run in ", options_.state_bits,
               "; continue with the optim that the file was written with");
  const NamedTensors targets = stored_tensors();

  Problems problems(kOp, path.string());
  std::int64_t steps = 0;
  const std::string text = metadata(kStepKey, "");
  const auto read = std::from_chars(text.data(), text.data() + text.size(), steps);
  if (read.ec != std::errc() || read.ptr != text.data() + text.size() || steps < 0) {
    problems.add("the metadata has no number of steps under \"", kStepKey, "\"");
  }
  std::set<std::string> expected;
  for (const auto& [name, tensor] : targets) {
    expected.insert(name);
    if (!file.contains(name)) {
      problems.add("missing ", name);
      continue;
    }
    const char* dtype = tensor.scalar_type() == torch::kFloat32 ? "F32" : "U8";
    if (file.info(name).dtype != dtype ||
        tensor.sizes() != torch::IntArrayRef(file.info(name).shape)) {
      problems.add(name, " is ", file.info(name).dtype, " ",
                   torch::IntArrayRef(file.info(name).shape), "; expected ", dtype, " ",
                   tensor.sizes());
    }
  }
  for (const std::string& name : file.names()) {
    if (!expected.contains(name)) problems.add("unexpected ", name);
  }
  problems.throw_if_any();

  const torch::NoGradGuard no_grad;
  for (const auto& [name, tensor] : targets) {
    tensor.copy_(file.view(name));
    file.release(name);
  }
  for (Slot& slot : slots_) {
    if (slot.master.defined()) slot.parameter.copy_(slot.master);
  }
  num_steps_ = steps;
}

}  // namespace lorapp
