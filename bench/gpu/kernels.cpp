// The CUDA kernels' speed on the first GPU, as shares of the copy bandwidth measured between them.
// Prints a table. Buffers are random and rotate, so that no cache keeps them; a figure is the
// median of its repetitions. Status 77 without a GPU.
#include "kernels/cuda_launch.hpp"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

namespace {

using namespace lorapp;
using namespace lorapp::kernels;

void check(int error, const std::string& what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "gpu_kernels: %s: %s\n", what.c_str(),
               cudaGetErrorString(static_cast<cudaError_t>(error)));
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

std::mt19937_64 random_bits(1);

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
std::uint16_t* random_bf16(std::int64_t count) {
  return random_buffer<std::uint16_t>(count, 0x80ff80ff80ff80ffull, 0x3f003f003f003f00ull);
}
float* random_f32(std::int64_t count) {
  return random_buffer<float>(count, 0x80ffffff80ffffffull, 0x3f0000003f000000ull);
}

// Seconds of one call, which gets the number of its buffers; the median of nine times.
double seconds_of(const std::function<int(int)>& call, const std::string& what) {
  constexpr int kWarmups = 3, kTimes = 9, kCalls = 20;
  cudaEvent_t begin, end;
  check(cudaEventCreate(&begin), "an event");
  check(cudaEventCreate(&end), "an event");
  int buffer = 0;
  for (int i = 0; i < kWarmups; ++i) check(call(buffer++), what);
  std::vector<float> times;
  for (int time = 0; time < kTimes; ++time) {
    check(cudaEventRecord(begin), "an event");
    for (int i = 0; i < kCalls; ++i) check(call(buffer++), what);
    check(cudaEventRecord(end), "an event");
    check(cudaEventSynchronize(end), what);
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, begin, end), "an event");
    times.push_back(milliseconds / 1000 / kCalls);
  }
  std::nth_element(times.begin(), times.begin() + kTimes / 2, times.end());
  check(cudaEventDestroy(begin), "an event");
  check(cudaEventDestroy(end), "an event");
  return static_cast<double>(times[kTimes / 2]);
}

// Bytes a second, read and written.
double copy_bandwidth() {
  constexpr std::int64_t kBytes = std::int64_t{1} << 30;
  static std::uint8_t *from = random_buffer<std::uint8_t>(kBytes),
                      *to = device_buffer<std::uint8_t>(kBytes);
  const double seconds = seconds_of(
      [&](int) { return cudaMemcpyAsync(to, from, kBytes, cudaMemcpyDeviceToDevice, nullptr); },
      "copy");
  return 2.0 * static_cast<double>(kBytes) / seconds;
}

void report(const std::string& work,
            double least,
            double bytes,
            const std::function<int(int)>& call) {
  const double before = copy_bandwidth(), seconds = seconds_of(call, work);
  const double ceiling = (before + copy_bandwidth()) / 2, rate = bytes / seconds;
  std::printf("| %s | ≥ %.0f %% of copying | %.0f %% (%.1f µs, %.0f of %.0f GB/s) | %s |\n",
              work.c_str(), 100 * least, 100 * rate / ceiling, seconds * 1e6, rate / 1e9,
              ceiling / 1e9, rate >= least * ceiling ? "met" : "missed");
  std::fflush(stdout);
}

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
  double bytes() const {
    return static_cast<double>(rows * columns) * (0.5 + 1.0 / 64 + 4.0 / 64 / 256);
  }
};

const Codebook4 kBook = nf4_codebook();

void dequantizing(const float* map) {
  const Weight w(4096, 14336);
  std::vector<std::uint16_t*> out;
  for (int i = 0; i < 4; ++i) out.push_back(device_buffer<std::uint16_t>(w.rows * w.columns));
  report("dequantize 4096×14336, nested scales, to bf16", 0.90,
         w.bytes() + 2.0 * static_cast<double>(w.rows * w.columns), [&](int i) {
           const auto k = static_cast<std::size_t>(i % w.copies);
           cuda::DequantizeRowsArgs args{};
           args.codes = w.codes[k];
           args.rows = w.rows;
           args.columns = w.columns;
           args.blocksize = 64;
           args.value = kBook.value;
           args.nested = w.nested[k];
           args.nested_absmax = w.outer[k];
           args.nested_blocksize = 256;
           args.map = map;
           args.offset = 0.02f;
           args.via = args.out_type = Float::bf16;
           args.out = out[static_cast<std::size_t>(i % 4)];
           args.out_stride = w.columns;
           return cuda::dequantize_4bit(args, nullptr);
         });
}

void small_products(const float* map) {
  struct Shape {
    std::int64_t rows, columns;
  };
  for (const Shape shape :
       {Shape{4096, 4096}, Shape{1024, 4096}, Shape{14336, 4096}, Shape{4096, 14336}}) {
    const std::int64_t rows = shape.rows, columns = shape.columns;
    const Weight w(rows, columns);
    for (const std::int64_t tokens : {1, 2, 4, 8, 16, 32, 64}) {
      const std::uint16_t* x = random_bf16(tokens * columns);
      auto* y = device_buffer<std::uint16_t>(tokens * rows);
      const std::string name = std::to_string(tokens) + " rows × " + std::to_string(rows) + "×" +
                               std::to_string(columns);
      report(name, tokens == 1 ? 0.80 : 0.0,
             w.bytes() + 2.0 * static_cast<double>(tokens * (rows + columns)), [&](int i) {
               const auto k = static_cast<std::size_t>(i % w.copies);
               cuda::SmallProductArgs args{};
               args.x = x;
               args.tokens = tokens;
               args.codes = w.codes[k];
               args.rows = rows;
               args.columns = columns;
               args.blocksize = 64;
               args.value = kBook.value;
               args.nested = w.nested[k];
               args.nested_absmax = w.outer[k];
               args.nested_blocksize = 256;
               args.map = map;
               args.offset = 0.02f;
               args.y = y;
               return cuda::small_product(args, nullptr);
             });
    }
  }
}

void elementwise() {
  constexpr std::int64_t kTokens = 8192, kHidden = 4096, kFfn = 14336, kVocab = 32000,
                         kLabelled = 2048;
  const std::int64_t n = kTokens * kHidden, wide = kTokens * kFfn;
  std::uint16_t *x = random_bf16(wide), *up = random_bf16(wide), *dy = random_bf16(wide),
                *weight = random_bf16(kHidden);
  auto* y = device_buffer<std::uint16_t>(wide);
  auto* scale = device_buffer<float>(kTokens);
  const auto bytes = [](std::int64_t elements) { return 2.0 * static_cast<double>(elements); };
  report("RMSNorm, 8192 × 4096", 0.85, bytes(2 * n), [&](int) {
    return cuda::rms_norm({x, Float::bf16, kTokens, kHidden, weight, 1e-5f, y, scale}, nullptr);
  });
  report("RMSNorm, gradient", 0.85, bytes(3 * n), [&](int) {
    return cuda::rms_norm_backward(
        {x, Float::bf16, kTokens, kHidden, weight, scale, dy, y, nullptr}, nullptr);
  });
  const std::uint16_t *cos = random_bf16(kTokens * 64), *sin = random_bf16(kTokens * 64);
  report("rotation, 8192 × 32 × 128", 0.85, bytes(2 * n), [&](int) {
    return cuda::rotate({x, Float::bf16, kTokens, 32, 128, kHidden, 128, cos, sin, false, y},
                        nullptr);
  });
  report("SwiGLU, 8192 × 14336", 0.85, bytes(3 * wide), [&](int) {
    return cuda::swiglu({x, up, Float::bf16, wide, y}, nullptr);
  });
  auto* dgate = device_buffer<std::uint16_t>(wide);
  report("SwiGLU, gradients", 0.85, bytes(5 * wide), [&](int) {
    return cuda::swiglu_backward({x, up, dy, Float::bf16, wide, dgate, y}, nullptr);
  });
  report("dropout, 8192 × 4096", 0.85, bytes(2 * n), [&](int) {
    return cuda::dropout({x, Float::bf16, n, 7, 0, 0x20000000u, 1.142857f, y}, nullptr);
  });
  std::vector<std::int64_t> labels(kLabelled, 5);
  const std::int64_t* label = on_device(labels);
  float *largest = device_buffer<float>(kLabelled), *sum = device_buffer<float>(kLabelled),
        *picked = device_buffer<float>(kLabelled);
  report("loss and its gradient, 2048 × 32000", 0.85, bytes(2 * kLabelled * kVocab), [&](int) {
    return cuda::cross_entropy(
        {y, Float::bf16, kLabelled, kVocab, label, true, 1e-3f, largest, sum, picked, nullptr},
        nullptr);
  });
  constexpr std::int64_t kParameters = 42'000'000;  // r = 16 on all linear layers of Mistral-7B
  float *p = random_f32(kParameters), *g = random_f32(kParameters), *m = random_f32(kParameters),
        *v = device_buffer<float>(kParameters);
  check(cudaMemset(v, 0, kParameters * sizeof(float)), "memory");
  auto *partial = device_buffer<double>(cuda::kPartialSums), *squares = device_buffer<double>(1);
  const AdamWStep step{1.0f, 0.999f, 0.1f, 0.001f, 0.03f, 1e-6f, 1e-8f, 1.0f};
  report("norm of gradients, 42 M", 0.85, 4.0 * kParameters,
         [&](int) { return cuda::sum_of_squares(g, kParameters, partial, squares, nullptr); });
  report("AdamW with clipping, 42 M", 0.85, 28.0 * kParameters, [&](int) {
    return cuda::adamw({p, g, m, v, kParameters, step}, {squares, 1.0f}, nullptr);
  });
}

}  // namespace

int main() {
  int devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&devices);
  if (error != cudaSuccess || devices == 0) {
    std::printf("skipped: no GPU (%s)\n", cudaGetErrorString(error));
    return 77;
  }
  cudaDeviceProp gpu;
  check(cudaGetDeviceProperties(&gpu, 0), "the GPU");
  std::printf(
      "%s, compute capability %d.%d, %d multiprocessors\n\n| work | target | measured | "
      "|\n|---|---|---|---|\n",
      gpu.name, gpu.major, gpu.minor, gpu.multiProcessorCount);
  const DynamicMap map = dynamic_map();
  const float* values = on_device(std::vector<float>(map.value, map.value + 256));
  dequantizing(values);
  small_products(values);
  elementwise();
}
