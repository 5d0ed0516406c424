// What this machine can do at most: multiply-adds a second, bytes a second. The standard library,
// the kernel's memory calls and inline assembly alone, so that no other code is measured with it.
// A rate is the best of several runs: what disturbs a run only ever lowers it.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <latch>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace lorapp::bench {

/// A loop of multiply-adds on registers alone.
enum class Loop { fma_f32_avx512, fma_f32_avx2, dot_bf16_avx512 };

inline constexpr std::array kLoops = {Loop::fma_f32_avx512, Loop::fma_f32_avx2,
                                      Loop::dot_bf16_avx512};

inline const char* name_of(Loop loop) {
  switch (loop) {
    case Loop::fma_f32_avx512:
      return "fma_f32_avx512";
    case Loop::fma_f32_avx2:
      return "fma_f32_avx2";
    case Loop::dot_bf16_avx512:
      break;
  }
  return "dot_bf16_avx512";
}

/// The CPU feature that this CPU lacks for a loop; empty: none.
inline std::string missing_for(Loop loop) {
#if defined(__x86_64__)
  switch (loop) {
    case Loop::fma_f32_avx512:
      return __builtin_cpu_supports("avx512f") ? "" : "AVX512F";
    case Loop::fma_f32_avx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? "" : "AVX2 and FMA";
    case Loop::dot_bf16_avx512:
      return __builtin_cpu_supports("avx512bf16") ? "" : "AVX512_BF16";
  }
#endif
  return "an x86-64 CPU";
}

/// Seconds from the first start to the last end of f(thread) on `threads` threads at once.
template <class F>
double seconds_on_threads(int threads, F&& f) {
  using Clock = std::chrono::steady_clock;
  std::vector<Clock::time_point> begin(static_cast<std::size_t>(threads)), end = begin;
  std::latch start(threads);
  std::vector<std::thread> pool;
  for (int t = 0; t < threads; ++t) {
    pool.emplace_back([&, t] {
      start.arrive_and_wait();
      begin[static_cast<std::size_t>(t)] = Clock::now();
      f(t);
      end[static_cast<std::size_t>(t)] = Clock::now();
    });
  }
  for (std::thread& thread : pool) thread.join();
  return std::chrono::duration<double>(*std::max_element(end.begin(), end.end()) -
                                       *std::min_element(begin.begin(), begin.end()))
      .count();
}

#if defined(__x86_64__)
namespace detail {

// One step adds register 12 · register 13 to each of twelve sums: two multiply-add units with a
// latency of four to five cycles are never idle.
#define LORAPP_BENCH_ADD(op, r, sum) op " %%" r "12,%%" r "13,%%" r #sum "\n\t"
#define LORAPP_BENCH_STEP(op, r) \
  LORAPP_BENCH_ADD(op, r, 0)     \
  LORAPP_BENCH_ADD(op, r, 1)     \
  LORAPP_BENCH_ADD(op, r, 2)     \
  LORAPP_BENCH_ADD(op, r, 3)     \
  LORAPP_BENCH_ADD(op, r, 4)     \
  LORAPP_BENCH_ADD(op, r, 5)     \
  LORAPP_BENCH_ADD(op, r, 6)     \
  LORAPP_BENCH_ADD(op, r, 7)     \
  LORAPP_BENCH_ADD(op, r, 8)     \
  LORAPP_BENCH_ADD(op, r, 9) LORAPP_BENCH_ADD(op, r, 10) LORAPP_BENCH_ADD(op, r, 11)
#define LORAPP_BENCH_ZERO(sum) "vxorps %%xmm" #sum ",%%xmm" #sum ",%%xmm" #sum "\n\t"
#define LORAPP_BENCH_LOOP(op, r)                                                                 \
  asm volatile(                                                                                  \
      LORAPP_BENCH_ZERO(0) LORAPP_BENCH_ZERO(1) LORAPP_BENCH_ZERO(2) LORAPP_BENCH_ZERO(3)        \
          LORAPP_BENCH_ZERO(4) LORAPP_BENCH_ZERO(5) LORAPP_BENCH_ZERO(6) LORAPP_BENCH_ZERO(7)    \
              LORAPP_BENCH_ZERO(8) LORAPP_BENCH_ZERO(9) LORAPP_BENCH_ZERO(10) LORAPP_BENCH_ZERO( \
                  11) "vbroadcastss %1,%%" r "12\n\tvbroadcastss %1,%%" r                        \
                      "13\n"                                                                     \
                      "1:\n\t" LORAPP_BENCH_STEP(op, r) "dec %0\n\tjnz 1b\n\tvzeroupper"         \
      : "+r"(steps)                                                                              \
      : "m"(factor)                                                                              \
      : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",    \
        "xmm10", "xmm11", "xmm12", "xmm13")

inline void multiply_add(Loop loop, std::int64_t steps) {
  // As f32 0.016, as two bf16 about that: sums stay far from overflow and subnormals.
  const auto factor = std::bit_cast<float>(0x3c833c83u);
  switch (loop) {
    case Loop::fma_f32_avx512:
      LORAPP_BENCH_LOOP("vfmadd231ps", "zmm");
      break;
    case Loop::fma_f32_avx2:
      LORAPP_BENCH_LOOP("vfmadd231ps", "ymm");
      break;
    case Loop::dot_bf16_avx512:
      LORAPP_BENCH_LOOP("vdpbf16ps", "zmm");
      break;
  }
}
#undef LORAPP_BENCH_ADD
#undef LORAPP_BENCH_STEP
#undef LORAPP_BENCH_ZERO
#undef LORAPP_BENCH_LOOP

}  // namespace detail
#endif

/// Floating-point operations a second of all threads together. Throws where the CPU lacks the loop.
inline double flops_of(Loop loop, int threads, int runs = 10) {
  const std::string missing = missing_for(loop);
  if (!missing.empty()) throw std::runtime_error(std::string(name_of(loop)) + " needs " + missing);
  double best = 0;
#if defined(__x86_64__)
  constexpr std::int64_t kSteps = 2'000'000;
  const double of_register = loop == Loop::dot_bf16_avx512  ? 64
                             : loop == Loop::fma_f32_avx512 ? 32
                                                            : 16;
  for (int run = 0; run < runs; ++run) {
    const double seconds =
        seconds_on_threads(threads, [&](int) { detail::multiply_add(loop, kSteps); });
    best = std::max(best, 12.0 * of_register * kSteps * threads / seconds);
  }
#else
  (void)threads, (void)runs;
#endif
  return best;
}

/// Memory in pages of 2 MiB where the system gives them, or of 4 KiB; written once by the threads
/// that read it.
class Pages {
 public:
  Pages(std::size_t bytes, bool huge, int threads) : bytes_(bytes), reserved_(bytes + kHuge) {
    base_ = ::mmap(nullptr, reserved_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base_ == MAP_FAILED) {
      throw std::runtime_error("no memory for a buffer of " + std::to_string(bytes) + " bytes");
    }
    const auto address = (reinterpret_cast<std::uintptr_t>(base_) + kHuge - 1) / kHuge * kHuge;
    data_ = reinterpret_cast<char*>(address);
    ::madvise(data_, bytes_, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);  // checked by huge_bytes()
    seconds_on_threads(threads, [&](int t) {
      std::memset(data_ + part(threads) * static_cast<std::size_t>(t), 1 + t, part(threads));
    });
  }
  ~Pages() { ::munmap(base_, reserved_); }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;

  char* data() const { return data_; }
  std::size_t size() const { return bytes_; }
  /// Bytes of one thread, a multiple of 4 KiB.
  std::size_t part(int threads) const {
    return bytes_ / static_cast<std::size_t>(threads) / 4096 * 4096;
  }

  /// Bytes of this process's memory that are in huge pages.
  static std::size_t huge_bytes() {
    std::ifstream file("/proc/self/smaps_rollup");
    for (std::string line; std::getline(file, line);) {
      if (line.starts_with("AnonHugePages:")) return std::stoull(line.substr(14)) << 10;
    }
    return 0;
  }

 private:
  static constexpr std::size_t kHuge = std::size_t{2} << 20;
  std::size_t bytes_, reserved_;
  void* base_ = nullptr;
  char* data_ = nullptr;
};

/// A buffer that no cache holds: four times the last cache, at least 512 MiB, at most an eighth of
/// the memory.
inline std::size_t buffer_bytes() {
  const long cache = ::sysconf(_SC_LEVEL3_CACHE_SIZE);
  const auto memory = static_cast<std::size_t>(::sysconf(_SC_PHYS_PAGES)) *
                      static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const auto wanted =
      std::max(std::size_t{512} << 20, 4 * static_cast<std::size_t>(std::max(0L, cache)));
  return std::min(wanted, memory / 8) >> 21 << 21;
}

namespace detail {

inline void keep(std::uint64_t value) { asm volatile("" : : "r"(value)); }

#if defined(__x86_64__)
// `Streams` equal parts side by side, each fetched `ahead` bytes before it is read.
template <int Streams>
__attribute__((target("avx512f"))) void read_avx512(const char* p,
                                                    std::size_t bytes,
                                                    std::size_t ahead) {
  const std::size_t stride = bytes / Streams / 64 * 64;
  __m512i sum[Streams];
  for (auto& each : sum) each = _mm512_setzero_si512();
  for (std::size_t i = 0; i < stride; i += 64) {
    for (int s = 0; s < Streams; ++s) {
      const char* line = p + static_cast<std::size_t>(s) * stride + i;
      if (ahead > 0) _mm_prefetch(line + ahead, _MM_HINT_T0);
      sum[s] = _mm512_xor_si512(sum[s], _mm512_loadu_si512(line));
    }
  }
  for (const auto& each : sum) {
    keep(static_cast<std::uint64_t>(_mm_cvtsi128_si64(_mm512_castsi512_si128(each))));
  }
}

template <int Streams>
__attribute__((target("avx2"))) void read_avx2(const char* p,
                                               std::size_t bytes,
                                               std::size_t ahead) {
  const std::size_t stride = bytes / Streams / 64 * 64;
  __m256i sum[Streams];
  for (auto& each : sum) each = _mm256_setzero_si256();
  for (std::size_t i = 0; i < stride; i += 64) {
    for (int s = 0; s < Streams; ++s) {
      const char* line = p + static_cast<std::size_t>(s) * stride + i;
      if (ahead > 0) _mm_prefetch(line + ahead, _MM_HINT_T0);
      const auto* words = reinterpret_cast<const __m256i*>(line);
      sum[s] = _mm256_xor_si256(sum[s], _mm256_loadu_si256(words));
      sum[s] = _mm256_xor_si256(sum[s], _mm256_loadu_si256(words + 1));
    }
  }
  for (const auto& each : sum) {
    keep(static_cast<std::uint64_t>(_mm_cvtsi128_si64(_mm256_castsi256_si128(each))));
  }
}
#endif

inline void read_words(const char* p, std::size_t bytes) {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < bytes; i += 8) {
    std::uint64_t word;
    std::memcpy(&word, p + i, 8);
    sum ^= word;
  }
  keep(sum);
}

template <int Streams>
void read(const char* p, std::size_t bytes, std::size_t ahead) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return read_avx512<Streams>(p, bytes, ahead);
  if (__builtin_cpu_supports("avx2")) return read_avx2<Streams>(p, bytes, ahead);
#endif
  (void)ahead;
  read_words(p, bytes);
}

}  // namespace detail

/// Bytes a second that all threads together read from a buffer. With `fetch`, the best of several
/// distances of prefetching; without, none.
inline double read_bandwidth(const Pages& pages, int threads, bool fetch, int runs = 3) {
  double best = 0;
  const std::size_t part = pages.part(threads);
  const auto measure = [&](auto&& read) {
    for (int run = 0; run < runs; ++run) {
      const double seconds = seconds_on_threads(
          threads, [&](int t) { read(pages.data() + part * static_cast<std::size_t>(t)); });
      best = std::max(best, static_cast<double>(part) * threads / seconds);
    }
  };
  if (!fetch) {
    measure([&](const char* p) { detail::read<1>(p, part, 0); });
    return best;
  }
  for (const std::size_t ahead : {512u, 1024u, 4096u}) {
    measure([&](const char* p) { detail::read<1>(p, part, ahead); });
    measure([&](const char* p) { detail::read<4>(p, part, ahead); });
  }
  return best;
}

/// Bytes read and written a second, together, of copying one half of a buffer to the other.
inline double copy_bandwidth(const Pages& pages, int threads, int runs = 3) {
  double best = 0;
  const std::size_t half = pages.part(threads) / 2;
  for (int run = 0; run < runs; ++run) {
    const double seconds = seconds_on_threads(threads, [&](int t) {
      char* p = pages.data() + pages.part(threads) * static_cast<std::size_t>(t);
      std::memcpy(p + half, p, half);
    });
    best = std::max(best, 2.0 * static_cast<double>(half) * threads / seconds);
  }
  return best;
}

}  // namespace lorapp::bench
