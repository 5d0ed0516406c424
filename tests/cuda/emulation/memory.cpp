// device_memory.hpp for the emulation: the heap, so that the address sanitizer watches it.
#include "cuda/device_memory.hpp"

#include <cstdlib>
#include <cstring>
#include <new>

namespace lorapp::test {

void* device_allocate(std::size_t bytes) {
  void* p = nullptr;
  if (posix_memalign(&p, 16, bytes > 0 ? bytes : 1) != 0) throw std::bad_alloc();
  return p;
}
void device_free(void* p) { std::free(p); }
void copy_to_device(void* to, const void* from, std::size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}
void copy_to_host(void* to, const void* from, std::size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}

}  // namespace lorapp::test
