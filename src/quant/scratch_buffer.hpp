// ScratchBuffer: memory for the length of a call, kept for the next one.
// Private to src/.
#pragma once

#include "quant/aligned_buffer.hpp"

#include <array>
#include <utility>

namespace lorapp::detail {

/// An AlignedBuffer of at least `size` bytes out of those that this thread has returned. Fresh
/// memory costs a page fault every 4 KiB, a tenth of a product's time. A thread keeps up to four
/// buffers of at most 64 MiB.
class ScratchBuffer {
 public:
  explicit ScratchBuffer(std::int64_t size) {
    // The smallest that is large enough, else a new one.
    AlignedBuffer* best = nullptr;
    for (AlignedBuffer& buffer : kept()) {
      if (buffer.size() >= size && (best == nullptr || buffer.size() < best->size())) {
        best = &buffer;
      }
    }
    buffer_ = best != nullptr ? std::exchange(*best, AlignedBuffer()) : AlignedBuffer(size);
  }
  ~ScratchBuffer() {
    constexpr std::int64_t kLargest = std::int64_t{64} << 20;
    if (buffer_.size() > kLargest) return;
    // In the place of the smallest, which goes.
    AlignedBuffer* smallest = &kept()[0];
    for (AlignedBuffer& buffer : kept()) {
      if (buffer.size() < smallest->size()) smallest = &buffer;
    }
    if (smallest->size() < buffer_.size()) std::swap(*smallest, buffer_);
  }
  ScratchBuffer(const ScratchBuffer&) = delete;
  ScratchBuffer& operator=(const ScratchBuffer&) = delete;

  template <class T>
  T* as() const noexcept {
    return buffer_.as<T>();
  }

 private:
  static std::array<AlignedBuffer, 4>& kept() {
    thread_local std::array<AlignedBuffer, 4> buffers;
    return buffers;
  }

  AlignedBuffer buffer_;
};

}  // namespace lorapp::detail
