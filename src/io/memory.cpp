// The peak of this process's resident memory.
#include <lorapp/io/memory.hpp>

#include <sys/resource.h>

#include <cstdlib>
#include <fstream>
#include <string>

namespace lorapp {

std::uint64_t peak_memory_bytes() {
  constexpr std::uint64_t kKiB = 1024;
  // getrusage's figure is inherited across exec on Linux; VmHWM is this program's own.
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::strtoull(line.c_str() + 6, nullptr, 10) * kKiB;
  }
  rusage usage{};
  if (getrusage(RUSAGE_SELF, &usage) != 0) return 0;
#ifdef __APPLE__
  return static_cast<std::uint64_t>(usage.ru_maxrss);
#else
  return static_cast<std::uint64_t>(usage.ru_maxrss) * kKiB;
#endif
}

}  // namespace lorapp
