// Memory of the device that CUDA kernels are tested on: a GPU's, or the emulation's, which is the
// heap. The program that is linked says which.
#pragma once

#include "kernels/table.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace lorapp::test {

/// Throws std::runtime_error where the device has no room.
void* device_allocate(std::size_t bytes);
void device_free(void* p);
void copy_to_device(void* to, const void* from, std::size_t bytes);
/// Waits for the device. Throws std::runtime_error where a kernel has failed.
void copy_to_host(void* to, const void* from, std::size_t bytes);

/// Host buffers on the device, as long as a kernel runs. A copy has its original's size, and its
/// place modulo 16, and ends where its memory does, so that an address sanitizer sees what the
/// emulation reads or writes behind it. What is one buffer on the host is one there.
class Mirror {
 public:
  /// A copy that is only read; null of null.
  template <class T>
  const T* in(const T* host, std::int64_t count) {
    return static_cast<const T*>(copy(host, count * size_of<T>()));
  }
  /// A copy that finish() brings back.
  template <class T>
  T* out(T* host, std::int64_t count) {
    void* device = copy(host, count * size_of<T>());
    if (host != nullptr)
      outputs_.push_back({host, device, static_cast<std::size_t>(count * size_of<T>())});
    return static_cast<T*>(device);
  }
  /// Brings results back. Throws std::runtime_error where a launch returned `error`.
  void finish(int error);

 private:
  struct Output {
    void* host;
    const void* device;
    std::size_t bytes;
  };
  struct Free {
    void operator()(void* p) const { device_free(p); }
  };
  template <class T>
  static constexpr std::int64_t size_of() {
    if constexpr (std::is_void_v<T>) {
      return 1;
    } else {
      return sizeof(T);
    }
  }
  void* copy(const void* host, std::int64_t bytes);

  struct Copy {
    const void* host;
    std::int64_t bytes;
    void* device;
  };

  std::vector<std::unique_ptr<void, Free>> memory_;
  std::vector<Copy> copies_;
  std::vector<Output> outputs_;
};

/// The CUDA kernels behind the arguments of the CPU's: buffers go to the device and come back.
/// Products and attention are null.
const kernels::KernelTable& table_cuda();

}  // namespace lorapp::test
