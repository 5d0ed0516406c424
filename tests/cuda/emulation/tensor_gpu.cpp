// tensor_gpu.hpp as a PrivateUse1 backend of LibTorch.
#include "cuda/tensor_gpu.hpp"

#include <ATen/EmptyTensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/view_native.h>
#include <c10/core/Allocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <atomic>
#include <cstdlib>
#include <cstring>

namespace lorapp::test {
namespace {

constexpr auto kType = c10::DeviceType::PrivateUse1;
const c10::Device kDevice(kType, 0);

std::atomic<std::int64_t> copies{0}, live{0};
thread_local int stand_ins = 0;  // LibTorch's own operations that are running

// Memory with its size in front.
constexpr std::size_t kHeader = 64;

void release(void* data) {
  if (data == nullptr) return;
  char* start = static_cast<char*>(data) - kHeader;
  std::int64_t bytes = 0;
  std::memcpy(&bytes, start, sizeof bytes);
  live -= bytes;
  std::free(start);
}

class Heap final : public c10::Allocator {
 public:
  c10::DataPtr allocate(std::size_t bytes) override {
    if (bytes == 0) return {nullptr, nullptr, &release, kDevice};
    const auto size = static_cast<std::int64_t>(bytes);
    void* start = std::aligned_alloc(kHeader, kHeader + (bytes + kHeader - 1) / kHeader * kHeader);
    if (start == nullptr) throw std::bad_alloc();
    std::memcpy(start, &size, sizeof size);
    live += size;
    char* data = static_cast<char*>(start) + kHeader;
    // NaN: what is read before it is written shows. The space of products is too large to fill.
    constexpr std::size_t kFilled = std::size_t{1} << 22;
    if (bytes <= kFilled) std::memset(data, 0xff, bytes);
    return {data, data, &release, kDevice};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    std::memcpy(to, from, bytes);
  }
};
Heap heap;
REGISTER_ALLOCATOR(kType, &heap);

struct Guard final : c10::impl::NoOpDeviceGuardImpl<kType> {
  c10::Device exchangeDevice(c10::Device) const override { return kDevice; }
  c10::Device getDevice() const override { return kDevice; }
  c10::Stream getStream(c10::Device) const noexcept override {
    return c10::Stream(c10::Stream::DEFAULT, kDevice);
  }
  c10::Stream exchangeStream(c10::Stream) const noexcept override { return getStream(kDevice); }
  void* getStreamNativeHandle(const c10::Stream) const override { return nullptr; }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard)

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
};

// The same memory as a tensor on the CPU.
at::Tensor on_host(const at::Tensor& x) {
  if (x.is_cpu()) return x;
  return at::from_blob(x.data_ptr(), x.sizes(), x.strides(),
                       at::TensorOptions().dtype(x.scalar_type()));
}

at::Tensor empty(at::IntArrayRef size,
                 std::optional<at::ScalarType> dtype,
                 std::optional<at::Layout>,
                 std::optional<at::Device>,
                 std::optional<bool>,
                 std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(size, &heap, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                   c10::dtype_or_default(dtype), format);
}

at::Tensor empty_strided(at::IntArrayRef size,
                         at::IntArrayRef stride,
                         std::optional<at::ScalarType> dtype,
                         std::optional<at::Layout>,
                         std::optional<at::Device>,
                         std::optional<bool>) {
  return at::detail::empty_strided_generic(size, stride, &heap,
                                           c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                           c10::dtype_or_default(dtype));
}

at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool /*non_blocking*/) {
  if (to.is_cpu() && stand_ins == 0) ++copies;
  on_host(to).copy_(on_host(from));
  return to;
}

const at::Tensor& resize_tensor(const at::Tensor& x,
                                at::IntArrayRef size,
                                std::optional<at::MemoryFormat>) {
  at::TensorImpl* tensor = x.unsafeGetTensorImpl();
  std::size_t bytes = x.element_size();
  for (const std::int64_t each : size) bytes *= static_cast<std::size_t>(each);
  if (bytes > x.storage().nbytes()) {
    c10::StorageImpl* storage = x.storage().unsafeGetStorageImpl();
    c10::DataPtr data = heap.allocate(bytes);
    if (x.storage().nbytes() > 0) std::memcpy(data.get(), storage->data(), storage->nbytes());
    storage->set_data_ptr_noswap(std::move(data));
    storage->set_nbytes(bytes);
  }
  tensor->set_sizes_contiguous(size);
  return x;
}

at::Tensor copy_from_and_resize(const at::Tensor& from, const at::Tensor& to) {
  if (to.sizes() != from.sizes()) resize_tensor(to, from.sizes(), std::nullopt);
  return copy_from(from, to, false);
}

at::Scalar local_scalar(const at::Tensor& x) {
  if (stand_ins == 0) ++copies;
  return on_host(x).item();
}

// As CUDA's operations do: operands on the CPU beside the device's are numbers, or indices.
void refuse_mixing(const c10::OperatorHandle& op, const torch::jit::Stack& stack) {
  const std::string& name = op.schema().name();
  if (name.starts_with("aten::index") && name != "aten::index_select") return;
  bool device = false, host = false;
  const auto look = [&](const at::Tensor& x) {
    if (!x.defined()) return;
    device = device || !x.is_cpu();
    host = host || (x.is_cpu() && x.dim() > 0);
  };
  for (const c10::IValue& each : torch::jit::last(stack, op.schema().arguments().size())) {
    if (each.isTensor()) look(each.toTensor());
    if (each.isTensorList()) {
      for (const at::Tensor& one : each.toTensorVector()) look(one);
    }
  }
  TORCH_CHECK(!(device && host), name, ": expected all tensors on one device");
}

void stand_in(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  refuse_mixing(op, *stack);
  ++stand_ins;
  try {
    at::native::cpu_fallback(op, stack);
  } catch (...) {
    --stand_ins;
    throw;
  }
  --stand_ins;
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("_copy_from", &copy_from);
  m.impl("_copy_from_and_resize", &copy_from_and_resize);
  m.impl("_local_scalar_dense", &local_scalar);
  m.impl("resize_", &resize_tensor);
  m.impl("as_strided", &at::native::as_strided_tensorimpl);
  m.impl("view", &at::native::view);
  m.impl("_reshape_alias", &at::native::_reshape_alias);
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&stand_in>());
}

}  // namespace

TensorGpu::TensorGpu() : TensorGpu(*kernels::cuda::launchers()) {}

TensorGpu::TensorGpu(const kernels::cuda::Launchers& launchers) : backend_({kType, &launchers}) {
  static const bool known = [] {
    c10::register_privateuse1_backend("emulated");
    static Hooks hooks;
    at::RegisterPrivateUse1HooksInterface(&hooks);
    return true;
  }();
  static_cast<void>(known);
}

c10::Device TensorGpu::device() const { return kDevice; }

std::int64_t host_copies() { return copies; }
std::int64_t live_bytes() { return live; }

}  // namespace lorapp::test
