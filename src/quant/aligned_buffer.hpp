// AlignedBuffer: memory for large arrays that are read again and again.
// Private to src/.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace lorapp::detail {

/// `size` bytes, not initialized, aligned to 64 bytes; those of 2 MiB and more begin on a page of 2
/// MiB and ask for pages of that size, which the system may refuse (fewer misses of the address
/// translation: streaming through a weight is up to 1.6 times as fast). Throws std::bad_alloc.
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(std::int64_t size) : size_(size) {
    constexpr std::int64_t kHugePage = std::int64_t{1} << 21;
    const std::int64_t alignment = size >= kHugePage ? kHugePage : 64;
    const std::int64_t rounded = (size + alignment - 1) / alignment * alignment;
    data_ = static_cast<std::uint8_t*>(
        std::aligned_alloc(static_cast<std::size_t>(alignment),
                           static_cast<std::size_t>(rounded > 0 ? rounded : alignment)));
    if (data_ == nullptr) throw std::bad_alloc();
#if defined(__linux__)
    if (size >= kHugePage) madvise(data_, static_cast<std::size_t>(rounded), MADV_HUGEPAGE);
#endif
  }
  ~AlignedBuffer() { std::free(data_); }
  AlignedBuffer(AlignedBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }

  std::uint8_t* data() const noexcept { return data_; }
  template <class T>
  T* as() const noexcept {
    return reinterpret_cast<T*>(data_);
  }
  std::int64_t size() const noexcept { return size_; }

 private:
  std::uint8_t* data_ = nullptr;
  std::int64_t size_ = 0;
};

}  // namespace lorapp::detail
