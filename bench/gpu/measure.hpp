// What the GPU benchmarks share: device memory, random operands, times of calls, rows of the table.
// Weights rotate among copies that no cache holds together; other operands are larger than a cache,
// or as small as they are in use.
#pragma once

#include "kernels/cuda_products.hpp"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

namespace lorapp::bench_gpu {

using namespace kernels;

inline void check(int error, const std::string& what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "gpu_kernels: %s: %s\n", what.c_str(), cuda::error_text(error));
  std::exit(1);
}

// Memory that lives as long as the program.
template <class T>
T* device_buffer(std::int64_t count) {
  void* p = nullptr;
  check(cudaMalloc(&p, static_cast<std::size_t>(count) * sizeof(T)), "memory");
  return static_cast<T*>(p);
}

template <class T>
T* on_device(const std::vector<T>& host) {
  T* p = device_buffer<T>(static_cast<std::int64_t>(host.size()));
  check(cudaMemcpy(p, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice), "copying");
  return p;
}

inline std::mt19937_64 random_bits(1);

template <class T>
T* random_buffer(std::int64_t count, std::uint64_t mask = ~0ull, std::uint64_t set = 0) {
  std::vector<T> host(static_cast<std::size_t>(count));
  auto* bytes = reinterpret_cast<std::uint8_t*>(host.data());
  const std::size_t size = host.size() * sizeof(T);
  for (std::size_t i = 0; i + 8 <= size; i += 8) {
    const std::uint64_t word = (random_bits() & mask) | set;
    std::memcpy(bytes + i, &word, 8);
  }
  return on_device(host);
}
// Floats from 1/2 to 2, either sign, whatever the bits below.
inline std::uint16_t* random_bf16(std::int64_t count) {
  return random_buffer<std::uint16_t>(count, 0x80ff80ff80ff80ffull, 0x3f003f003f003f00ull);
}
inline float* random_f32(std::int64_t count) {
  return random_buffer<float>(count, 0x80ffffff80ffffffull, 0x3f0000003f000000ull);
}

/// What is measured: starts the work of one call, which gets the number of its buffers, on a
/// stream.
using Call = std::function<int(int, void*)>;

// Seconds of one call, the median of nine times 20 of them, or of more where there are more copies
// of a weight to take in turn: in a graph, so that short kernels do not wait for the host.
inline double seconds_of(const Call& call, const std::string& what, std::int64_t copies = 1) {
  constexpr int kWarmups = 3, kTimes = 9;
  const int calls_a_time = static_cast<int>(std::max<std::int64_t>(20, copies));
  cudaStream_t stream;
  cudaEvent_t begin, end;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "a stream");
  check(cudaEventCreate(&begin), "an event");
  check(cudaEventCreate(&end), "an event");
  for (int i = 0; i < kWarmups; ++i) check(call(i, stream), what);
  check(cudaStreamSynchronize(stream), what);
  cudaGraph_t graph;
  cudaGraphExec_t calls;
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "a capture");
  for (int i = 0; i < calls_a_time; ++i) check(call(i, stream), what);
  check(cudaStreamEndCapture(stream, &graph), "a capture");
  check(cudaGraphInstantiate(&calls, graph, 0), "a graph");
  check(cudaGraphLaunch(calls, stream), what);
  std::vector<float> times;
  for (int time = 0; time < kTimes; ++time) {
    check(cudaEventRecord(begin, stream), "an event");
    check(cudaGraphLaunch(calls, stream), what);
    check(cudaEventRecord(end, stream), "an event");
    check(cudaEventSynchronize(end), what);
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, begin, end), "an event");
    times.push_back(milliseconds / 1000 / static_cast<float>(calls_a_time));
  }
  std::nth_element(times.begin(), times.begin() + kTimes / 2, times.end());
  check(cudaGraphExecDestroy(calls), "a graph");
  check(cudaGraphDestroy(graph), "a graph");
  check(cudaEventDestroy(begin), "an event");
  check(cudaEventDestroy(end), "an event");
  check(cudaStreamDestroy(stream), "a stream");
  return static_cast<double>(times[kTimes / 2]);
}

// Bytes a second, read and written.
inline double copy_bandwidth() {
  constexpr std::int64_t kBytes = std::int64_t{1} << 30;
  static std::uint8_t *from = random_buffer<std::uint8_t>(kBytes),
                      *to = device_buffer<std::uint8_t>(kBytes);
  const double seconds = seconds_of(
      [&](int, void* stream) {
        return cudaMemcpyAsync(to, from, kBytes, cudaMemcpyDeviceToDevice,
                               static_cast<cudaStream_t>(stream));
      },
      "copy");
  return 2.0 * static_cast<double>(kBytes) / seconds;
}

/// A row of the table; `least` 0: no target. `copies` of a weight are taken in turn.
inline void report(const std::string& work,
                   double least,
                   double bytes,
                   const Call& call,
                   std::int64_t copies = 1) {
  const double before = copy_bandwidth(), seconds = seconds_of(call, work, copies);
  const double ceiling = (before + copy_bandwidth()) / 2, rate = bytes / seconds;
  char target[64] = "(beside copying)";
  if (least > 0) std::snprintf(target, sizeof target, "≥ %.0f %% of copying", 100 * least);
  std::printf("| %s | %s | %.0f %% (%.1f µs, %.0f of %.0f GB/s) | %s |\n", work.c_str(), target,
              100 * rate / ceiling, seconds * 1e6, rate / 1e9, ceiling / 1e9,
              least == 0                ? "-"
              : rate >= least * ceiling ? "met"
                                        : "missed");
  std::fflush(stdout);
}

inline const Codebook4 kBook = nf4_codebook();

// A 4-bit matrix with nested scales, several times over.
struct Weight {
  std::int64_t rows, columns, copies;
  std::vector<std::uint8_t*> codes, nested;
  std::vector<float*> outer;

  Weight(std::int64_t rows_, std::int64_t columns_) : rows(rows_), columns(columns_) {
    const std::int64_t n = rows * columns;
    copies = std::max<std::int64_t>(2, (std::int64_t{256} << 20) / (n / 2));  // beyond any L2 cache
    for (std::int64_t i = 0; i < copies; ++i) {
      codes.push_back(random_buffer<std::uint8_t>(n / 2));
      nested.push_back(random_buffer<std::uint8_t>(n / 64));
      outer.push_back(random_f32(n / 64 / 256 + 2));
    }
  }
  /// Sets the weight of DequantizeRowsArgs and its like to copy i.
  template <class Args>
  void set(Args& args, int i, const float* map) const {
    const auto k = static_cast<std::size_t>(i % copies);
    args.codes = codes[k];
    args.rows = rows;
    args.columns = columns;
    args.blocksize = 64;
    args.value = kBook.value;
    args.nested = nested[k];
    args.nested_absmax = outer[k];
    args.nested_blocksize = 256;
    args.map = map;
    args.offset = 0.02f;
  }
  double bytes() const {
    return static_cast<double>(rows * columns) * (0.5 + 1.0 / 64 + 4.0 / 64 / 256);
  }
};

void small_products(const float* map);
void many_tokens(const float* map);

}  // namespace lorapp::bench_gpu
