// CPUID leaves 1 and 7, and the register state that the OS enables (XCR0).
#include "kernels/cpu_features.hpp"

#include "kernels/table.hpp"

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace lorapp::kernels {

#if defined(__x86_64__) || defined(__i386__)
namespace {

std::uint64_t xcr0() noexcept {
  std::uint32_t low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<std::uint64_t>(high) << 32) | low;
}

// Linux gives a process tile registers when it asks for them, and from then on all its threads.
bool allowed_to_use_tiles() noexcept {
#if defined(__linux__) && defined(SYS_arch_prctl)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM
  return ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

constexpr bool bit(std::uint32_t word, int index) { return (word >> index & 1u) != 0; }

std::uint32_t read_features() noexcept {
  std::uint32_t a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0) return 0;
  const bool osxsave = bit(c, 27), fma = bit(c, 12), f16c = bit(c, 29);
  if (!osxsave) return 0;
  const std::uint64_t saved = xcr0();
  const bool ymm = (saved & 0x6) == 0x6;           // SSE and AVX state
  const bool zmm = ymm && (saved & 0xe0) == 0xe0;  // opmask, upper halves, upper registers
  const bool tiles = (saved & 0x60000) == 0x60000;

  std::uint32_t found = 0;
  if (ymm && fma) found |= kFma;
  if (ymm && f16c) found |= kF16c;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return found;
  if (ymm && bit(b, 5)) found |= kAvx2;
  if (zmm && bit(b, 16)) found |= kAvx512f;
  if (zmm && bit(b, 17)) found |= kAvx512dq;
  if (zmm && bit(b, 30)) found |= kAvx512bw;
  if (zmm && bit(b, 31)) found |= kAvx512vl;
  if (zmm && bit(c, 11)) found |= kAvx512vnni;
  if (tiles && bit(d, 22) && bit(d, 24) && allowed_to_use_tiles()) found |= kAmxBf16;
  if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && zmm && bit(a, 5))
    found |= kAvx512bf16;
  return found;
}

}  // namespace

bool multiplies_bf16_pairs_fast() noexcept {
  static const bool is_amd = [] {
    std::uint32_t a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid(0, &a, &b, &c, &d) != 0 && b == signature_AMD_ebx &&
           c == signature_AMD_ecx && d == signature_AMD_edx;
  }();
  return is_amd;
}

std::uint32_t cpu_features() noexcept {
  // Asked once: under a hypervisor every CPUID is a trap, tens of microseconds long.
  static const std::uint32_t found = read_features();
  return found;
}
#else
bool multiplies_bf16_pairs_fast() noexcept { return false; }
std::uint32_t cpu_features() noexcept { return 0; }
#endif

}  // namespace lorapp::kernels
