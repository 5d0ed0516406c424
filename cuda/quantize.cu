// Weights → 4-bit codes and absmax, absmax → 8-bit codes: the bytes of the CPU's tables.
#include "device.cuh"
#include "kernels/cuda_launch.hpp"

namespace lorapp::kernels::cuda {
namespace {

__device__ float magnitude(float x) { return from_bits(bits_of(x) & 0x7fffffffu); }

// What a block's values are scaled by, given their largest magnitude; a short last block is
// divided.
struct BlockScale {
  bool whole;
  float absmax, scale;

  __device__ BlockScale(const QuantizeMap& map, Place at, float largest)
      : whole((map.weight_block(at) + 1) * map.blocksize <= map.n),
        absmax(whole ? largest : short_block_absmax(largest)),
        scale(block_scale(absmax)) {}
  __device__ float operator()(float x) const {
    return whole ? x * scale : scale_in_short_block(x, absmax);
  }
};

// A word of codes, of which the first `count` elements are there; a nibble behind them is the code
// of 0, as far as its byte is written.
template <class Encode>
__device__ std::uint32_t word_of_codes(const Eight& x, int count, const Encode& encode) {
  std::uint32_t word = 0;
  for (int i = 0; i < kRunElements; i += 2) {
    const std::uint8_t first = encode(x.value[i]);
    const std::uint8_t second = encode(i + 1 < count ? x.value[i + 1] : 0.0f);
    word |= static_cast<std::uint32_t>(pack_nibbles(first, second)) << (4 * i);
  }
  return word;
}

__device__ void store_codes(std::uint8_t* p, int count, std::uint32_t word) {
  if (count == kRunElements && (reinterpret_cast<std::uintptr_t>(p) & 3) == 0) {
    *reinterpret_cast<std::uint32_t*>(p) = word;
    return;
  }
  for (int i = 0; i < (count + 1) / 2; ++i) p[i] = static_cast<std::uint8_t>(word >> (8 * i));
}

template <class T>
__global__ void __launch_bounds__(kBlockThreads)
    quantize_kernel(QuantizeArgs args,
                    const __grid_constant__ Codebook4 book,
                    unsigned long long* first_not_finite) {
  const Place at = here();
  const QuantizeMap map{args.n, args.blocksize};
  const auto* x = static_cast<const typename T::Storage*>(args.x);
  float largest = 0.0f;
  for (int step = 0; step < map.steps(); ++step) {
    const Run run = map.run(at, step);
    const Eight values = load_eight<T>(x + run.first, run.count);
    for (int i = 0; i < run.count; ++i) {
      if (!is_finite(values.value[i])) {
        atomicMin(first_not_finite, static_cast<unsigned long long>(run.first + i));
      }
      largest = fmaxf(largest, magnitude(values.value[i]));
    }
  }
  const BlockScale scale(map, at, max_over_lanes(largest, map.lanes()));
  if (map.writes_absmax(at)) args.absmax[map.weight_block(at)] = scale.absmax;
  const auto encode = [&](float value) { return encode4(book, scale(value)); };
  for (int step = 0; step < map.steps(); ++step) {
    const Run run = map.run(at, step);
    const Eight values = load_eight<T>(x + run.first, run.count);
    store_codes(args.codes + run.first / 2, run.count, word_of_codes(values, run.count, encode));
  }
}

// The mean of a flat buffer in double, by one block; its order does not change.
__global__ void __launch_bounds__(kBlockThreads)
    mean_kernel(const float* x, std::int64_t n, float* mean) {
  __shared__ double space[kBlockThreads];
  const Place at = here();
  double sum = 0.0;
  for (std::int64_t i = at.thread; i < n; i += kBlockThreads) sum += static_cast<double>(x[i]);
  sum = sum_over_block(at, sum, space);
  if (at.thread == 0) *mean = static_cast<float>(sum / static_cast<double>(n));
}

__global__ void __launch_bounds__(kBlockThreads)
    quantize_nested_kernel(NestedQuantizeArgs args,
                           const __grid_constant__ DynamicMap values,
                           const float* offset) {
  __shared__ DynamicMap shared;
  const Place at = here();
  for (int i = at.thread; i < 256; i += kBlockThreads) shared.value[i] = values.value[i];
  __syncthreads();
  const QuantizeMap map{args.n, args.blocksize};
  const float middle = *offset;
  float largest = 0.0f;
  for (int step = 0; step < map.steps(); ++step) {
    const Run run = map.run(at, step);
    const Eight x = load_eight<F32>(args.absmax + run.first, run.count);
    for (int i = 0; i < run.count; ++i) largest = fmaxf(largest, magnitude(x.value[i] - middle));
  }
  const BlockScale scale(map, at, max_over_lanes(largest, map.lanes()));
  if (map.writes_absmax(at)) args.nested_absmax[map.weight_block(at)] = scale.absmax;
  for (int step = 0; step < map.steps(); ++step) {
    const Run run = map.run(at, step);
    const Eight x = load_eight<F32>(args.absmax + run.first, run.count);
    for (int i = 0; i < run.count; ++i) {
      args.codes[run.first + i] = encode8(shared, scale(x.value[i] - middle));
    }
  }
}

__global__ void __launch_bounds__(kBlockThreads)
    expand_nested_kernel(NestedExpandArgs args, const float* offset) {
  const std::int64_t i = ElementMap{args.n}.element(here());
  if (i >= args.n) return;
  const float outer = args.nested_absmax[(args.first + i) / args.blocksize];
  args.absmax[i] =
      decode8(args.map, args.codes[i], outer, offset != nullptr ? *offset : args.offset);
}

}  // namespace

int quantize_4bit(const QuantizeArgs& args, unsigned long long* first_not_finite, void* stream) {
  if (!is_blocksize(args.blocksize)) return cudaErrorInvalidValue;
  return with_type(args.x_type, [&](auto type) {
    return launch(&quantize_kernel<decltype(type)>, QuantizeMap{args.n, args.blocksize}.grid(),
                  stream, args, *args.book, first_not_finite);
  });
}

int mean(const float* x, std::int64_t n, float* result, void* stream) {
  if (n <= 0) return cudaErrorInvalidValue;
  return launch(&mean_kernel, 1, stream, x, n, result);
}

int quantize_nested(const NestedQuantizeArgs& args, const float* offset, void* stream) {
  if (!is_blocksize(args.blocksize)) return cudaErrorInvalidValue;
  return launch(&quantize_nested_kernel, QuantizeMap{args.n, args.blocksize}.grid(), stream, args,
                *args.map, offset);
}

int expand_nested(const NestedExpandArgs& args, const float* offset, void* stream) {
  if (args.blocksize <= 0) return cudaErrorInvalidValue;
  return launch(&expand_nested_kernel, ElementMap{args.n}.grid(), stream, args, offset);
}

}  // namespace lorapp::kernels::cuda
