// Devices are looked at when the first tensor on one is used, once for a backend.
#include "quant/gpu.hpp"

#include <lorapp/quant/backend.hpp>

#include <c10/core/Stream.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <atomic>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace lorapp::detail {
namespace {

using kernels::cuda::GpuSearch;
using kernels::cuda::ProductAlgorithms;

// A backend with what was found of its devices.
struct State {
  explicit State(GpuBackend which) : backend(which) {}

  const GpuBackend backend;
  std::once_flag looked;
  GpuSearch search;
  std::vector<std::shared_ptr<ProductAlgorithms>> algorithms;  // one a device

  const GpuSearch& found() {
    std::call_once(looked, [&] {
      search = backend.launchers->find_gpus();
      for (std::size_t i = 0; i < search.gpus.size(); ++i) {
        algorithms.push_back(backend.launchers->make_product_algorithms());
      }
    });
    return search;
  }
};

std::atomic<State*>& current() {
  // Never destroyed: what cuBLASLt holds must not outlive the driver's own end.
  static std::atomic<State*> state{new State(GpuBackend{.launchers = kernels::cuda::launchers()})};
  return state;
}

State& state() { return *current().load(std::memory_order_acquire); }

// Why CUDA says no more of the GPUs behind those that were found; empty if there are none.
std::string why_no_more(const GpuSearch& search) {
  if (search.gpus.empty() || search.error.empty()) return {};
  return concat("CUDA cannot tell of GPU ", search.gpus.size(), " (", search.error,
                "); look at nvidia-smi and CUDA_VISIBLE_DEVICES");
}

// Why a device of the backend's type cannot be used.
std::optional<std::string> problem_with(State& state, std::int64_t index) {
  const GpuSearch& search = state.found();
  if (auto none = why_none(search)) return none;
  if (index < 0 || index >= static_cast<std::int64_t>(search.gpus.size())) {
    const std::string more = why_no_more(search);
    return concat("this machine has ", search.gpus.size(),
                  search.gpus.size() == 1 ? " GPU" : " GPUs", ", numbered from 0",
                  more.empty() ? "" : "; " + more);
  }
  const auto& gpu = search.gpus[static_cast<std::size_t>(index)];
  const auto why = why_not(gpu, state.backend.launchers->architectures);
  return why ? std::optional(gpu.name + ": " + *why) : std::nullopt;
}

}  // namespace

ScopedGpuBackend::ScopedGpuBackend(GpuBackend backend)
    : previous_(current().exchange(new State(backend))) {}

ScopedGpuBackend::~ScopedGpuBackend() {
  delete current().exchange(static_cast<State*>(const_cast<void*>(previous_)));
}

bool on_gpu(const c10::Device& device) {
  const GpuBackend backend = state().backend;
  return backend.launchers != nullptr && device.type() == backend.type;
}

void check_device(const c10::Device& device, const char* op) {
  if (device.is_cpu()) return;
  State& now = state();
  LORAPP_CHECK(device.type() == now.backend.type, op, "a tensor is on ", device,
               ", expected one on the CPU or a GPU (", c10::DeviceTypeName(now.backend.type, true),
               ")");
  LORAPP_CHECK(now.backend.launchers != nullptr, op, "a tensor is on ", device,
               ", but lorapp was built without CUDA kernels; expected a tensor on the CPU, or a "
               "build with LORAPP_CUDA=ON");
  const auto problem = problem_with(now, device.index());
  LORAPP_CHECK(!problem, op, "a tensor is on ", device, ", which cannot be used: ", *problem);
}

GpuScope::GpuScope(const c10::Device& device, const char* op)
    : guard_((check_device(device, op), device)), op_(op) {
  State& now = state();
  kernels_ = now.backend.launchers;
  const auto index = static_cast<std::size_t>(device.index());
  const auto& facts = now.found().gpus.at(index);
  gpu_ = {facts.capability, facts.processors};
  algorithms_ = now.algorithms.at(index);
  stream_ = c10::impl::VirtualGuardImpl(device.type()).getStream(device).native_handle();
}

kernels::cuda::DenseProducts GpuScope::products(const at::Tensor& space) const {
  return {algorithms_, space.mutable_data_ptr(), space.nbytes()};
}

void GpuScope::fail(int error, const char* kernel, const std::string& arguments) const {
  detail::fail(
      op_, concat("the kernel ", kernel, " (", arguments, ") failed to launch on ",
                  guard_.current_device(), ": ", kernels_->error_text(error), " (", error, ")"));
}

}  // namespace lorapp::detail

namespace lorapp {

bool cuda_available() { return kernels::cuda::launchers() != nullptr; }

std::vector<CudaDevice> cuda_devices() {
  std::vector<CudaDevice> devices;
  if (!cuda_available()) return devices;
  detail::State& state = detail::state();
  for (std::size_t i = 0; i < state.found().gpus.size(); ++i) {
    const auto& gpu = state.found().gpus[i];
    devices.push_back({gpu.name, gpu.capability / 10, gpu.capability % 10, gpu.processors,
                       gpu.memory_bytes,
                       detail::problem_with(state, static_cast<std::int64_t>(i)).value_or("")});
  }
  return devices;
}

namespace {
constexpr const char* kNoKernels =
    "lorapp was built without CUDA kernels; build it with LORAPP_CUDA=ON";
}

std::string cuda_problem(std::int64_t index) {
  if (!cuda_available()) return kNoKernels;
  return detail::problem_with(detail::state(), index).value_or("");
}

std::string cuda_problem() {
  if (!cuda_available()) return kNoKernels;
  const auto& found = detail::state().found();
  return why_none(found).value_or(detail::why_no_more(found));
}

std::int64_t most_packed_rows(torch::Device device,
                              std::int64_t rows,
                              std::int64_t columns,
                              std::int64_t blocksize) {
  constexpr const char* kOp = "most_packed_rows";
  LORAPP_CHECK(detail::on_gpu(device), kOp, "there are no kernels for ", device,
               ", expected a GPU in a build with CUDA");
  const torch::Device gpu(device.type(), device.has_index() ? device.index() : 0);
  detail::check_device(gpu, kOp);
  // Without a scope, which would make CUDA set the device up.
  const auto& facts = detail::state().found().gpus[static_cast<std::size_t>(gpu.index())];
  const kernels::cuda::Gpu known{facts.capability, facts.processors};
  using kernels::cuda::ProductKind;
  std::int64_t most = kernels::SmallProductMap::kMostTokens;
  while (most > 0 && kernels::cuda::choose_product(known, most, rows, columns, blocksize) !=
                         ProductKind::small) {
    --most;
  }
  return most;
}

std::string cuda_architectures() {
  return cuda_available() ? kernels::cuda::launchers()->architectures : "";
}

}  // namespace lorapp
