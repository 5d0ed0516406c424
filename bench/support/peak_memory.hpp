// PeakMemory: the most memory that tensors of a thread have at a time, by LibTorch's own allocator.
#pragma once

#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace lorapp::bench {

/// Counts from its construction on, what was there before aside.
class PeakMemory {
 public:
  PeakMemory() : count_(std::make_shared<Count>()), guard_(kKind, count_) {}

  std::int64_t bytes() const { return count_->peak; }

 private:
  struct Count : c10::MemoryReportingInfoBase {
    void reportMemoryUsage(
        void*, std::int64_t size, std::size_t, std::size_t, c10::Device) override {
      now += size;
      peak = std::max(peak, now);
    }
    bool memoryProfilingEnabled() const override { return true; }

    std::int64_t now = 0;
    std::int64_t peak = 0;
  };

  static constexpr auto kKind = c10::DebugInfoKind::PROFILER_STATE;

  std::shared_ptr<Count> count_;
  c10::DebugInfoGuard guard_;
};

}  // namespace lorapp::bench
