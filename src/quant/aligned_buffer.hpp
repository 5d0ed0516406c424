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
    void* memory = nullptr;
    if (posix_memalign(&memory, static_cast<std::size_t>(size >= kHugePage ? kHugePage : 64),
                       static_cast<std::size_t>(size > 0 ? size : 1)) != 0) {
      throw std::bad_alloc();
    }
    data_ = static_cast<std::uint8_t*>(memory);
#if defined(__linux__)
    // Whole pages alone: what follows the last one may be another's memory.
    const std::int64_t whole = size / kHugePage * kHugePage;
    if (whole > 0) madvise(data_, static_cast<std::size_t>(whole), MADV_HUGEPAGE);
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
