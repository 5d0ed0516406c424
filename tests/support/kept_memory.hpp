// kept_bytes: the memory of tensors that outlives a call, counted by LibTorch's own allocator.
#pragma once

#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <cstdint>
#include <memory>

namespace lorapp::test {

/// Adds up what this thread allocates and frees.
class MemoryCount : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, std::int64_t size, std::size_t, std::size_t, c10::Device) override {
    bytes_ += size;
  }
  bool memoryProfilingEnabled() const override { return true; }
  std::int64_t bytes() const { return bytes_; }

 private:
  std::int64_t bytes_ = 0;
};

/// The bytes of CPU tensors that `f()` makes and that its result keeps alive, a graph included.
template <class F>
std::int64_t kept_bytes(F&& f) {
  const auto count = std::make_shared<MemoryCount>();
  const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, count);
  const auto result = f();
  return count->bytes();
}

}  // namespace lorapp::test
