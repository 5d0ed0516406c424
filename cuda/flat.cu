// Flat buffers (rows_args.hpp): the optimizer's step, norms of gradients, dropout; rows of a table.
#include "device.cuh"
#include "kernels/cuda_launch.hpp"
#include "kernels/rows_args.hpp"

namespace lorapp::kernels::cuda {
namespace {

__global__ void __launch_bounds__(kBlockThreads)
    squares_kernel(const float* x, std::int64_t n, double* partial) {
  __shared__ double space[kBlockThreads];
  const Place at = here();
  const SumMap map{n};
  double sum = 0.0;
  for (std::int64_t step = 0; step < map.steps(); ++step) {
    const Run run = map.run(at, step);
    const Eight v = load_eight<F32>(x + run.first, run.count);
    for (int i = 0; i < kRunElements; ++i) {
      sum += static_cast<double>(v.value[i]) * static_cast<double>(v.value[i]);
    }
  }
  sum = sum_over_block(at, sum, space);
  if (at.thread == 0) partial[at.block] = sum;
}

__global__ void __launch_bounds__(kBlockThreads)
    total_kernel(const double* partial, double* total) {
  __shared__ double space[kBlockThreads];
  const Place at = here();
  double sum = 0.0;
  for (std::int64_t i = at.thread; i < SumMap::kBlocks; i += kBlockThreads) sum += partial[i];
  sum = sum_over_block(at, sum, space);
  if (at.thread == 0) *total = sum;
}

__device__ float clip_of(const NormClip& clip) {
  return static_cast<float>(clip_factor(sqrt(*clip.squares), clip.max_norm));
}

__global__ void __launch_bounds__(kBlockThreads) adamw_kernel(AdamWArgs args, NormClip clip) {
  const Place at = here();
  const FlatMap map{args.n};
  AdamWStep rule = args.step;
  if (clip.squares != nullptr) rule.clip = clip_of(clip);
  for (int step = 0; step < FlatMap::kSteps; ++step) {
    const Run run = map.run(at, step);
    Eight p = load_eight<F32>(args.p + run.first, run.count);
    const Eight g = load_eight<F32>(args.g + run.first, run.count);
    Eight m = load_eight<F32>(args.m + run.first, run.count);
    Eight v = load_eight<F32>(args.v + run.first, run.count);
    for (int i = 0; i < kRunElements; ++i)
      rule.update(p.value[i], g.value[i], m.value[i], v.value[i]);
    store_eight<F32>(args.p + run.first, run.count, p);
    store_eight<F32>(args.m + run.first, run.count, m);
    store_eight<F32>(args.v + run.first, run.count, v);
  }
}

// The codes of a run.
struct EightCodes {
  std::uint8_t code[kRunElements];
};

__device__ bool aligned_8(const void* p) { return (reinterpret_cast<std::uintptr_t>(p) & 7) == 0; }

// p[0] to p[count - 1], zeros behind them.
__device__ EightCodes load_codes(const std::uint8_t* p, int count) {
  EightCodes x;
  if (count == kRunElements && aligned_8(p)) {
    const uint2 words = *reinterpret_cast<const uint2*>(p);
    for (int i = 0; i < kRunElements; ++i) {
      x.code[i] = static_cast<std::uint8_t>((i < 4 ? words.x : words.y) >> (i % 4 * 8));
    }
    return x;
  }
  for (int i = 0; i < kRunElements; ++i) x.code[i] = i < count ? p[i] : std::uint8_t{0};
  return x;
}

__device__ void store_codes(std::uint8_t* p, int count, const EightCodes& x) {
  if (count == kRunElements && aligned_8(p)) {
    uint2 words{0, 0};
    for (int i = 0; i < kRunElements; ++i) {
      (i < 4 ? words.x : words.y) |= static_cast<unsigned>(x.code[i]) << (i % 4 * 8);
    }
    *reinterpret_cast<uint2*>(p) = words;
    return;
  }
  for (int i = 0; i < kRunElements; ++i) {
    if (i < count) p[i] = x.code[i];
  }
}

static_assert(kMomentBlock == kWarpLanes * kRunElements, "a warp has a block of moments");

__global__ void __launch_bounds__(kBlockThreads)
    adamw_8bit_kernel(AdamW8bitArgs args,
                      NormClip clip,
                      const __grid_constant__ DynamicMap first_values,
                      const __grid_constant__ DynamicMap second_values) {
  __shared__ MomentMap first, second;
  const Place at = here();
  for (int i = at.thread; i < 256; i += kBlockThreads) {
    set_entry(first, first_values, i);
    set_entry(second, second_values, i);
  }
  __syncthreads();
  const QuantizeMap map = moments_map(args.n);
  const Run run = map.run(at, 0);
  const bool has_block = map.weight_block(at) * kMomentBlock < args.n;
  const float m_absmax = has_block ? args.m_absmax[map.weight_block(at)] : 0.0f;
  const float v_absmax = has_block ? args.v_absmax[map.weight_block(at)] : 0.0f;
  AdamWStep rule = args.step;
  if (clip.squares != nullptr) rule.clip = clip_of(clip);

  Eight p = load_eight<F32>(args.p + run.first, run.count);
  const Eight g = load_eight<F32>(args.g + run.first, run.count);
  EightCodes m_codes = load_codes(args.m + run.first, run.count);
  EightCodes v_codes = load_codes(args.v + run.first, run.count);
  Eight m, v;
  float m_largest = 0.0f, v_largest = 0.0f;
  for (int i = 0; i < kRunElements; ++i) {
    m.value[i] = decode_moment(first, m_codes.code[i], m_absmax);
    v.value[i] = decode_moment(second, v_codes.code[i], v_absmax);
    rule.update(p.value[i], g.value[i], m.value[i], v.value[i]);
    if (i >= run.count) continue;
    m_largest = fmaxf(m_largest, moment_magnitude(m.value[i]));
    v_largest = fmaxf(v_largest, moment_magnitude(v.value[i]));
  }
  const float new_m_absmax = moment_absmax(max_over_lanes(m_largest, kWarpLanes));
  const float new_v_absmax = moment_absmax(max_over_lanes(v_largest, kWarpLanes));
  for (int i = 0; i < kRunElements; ++i) {
    m_codes.code[i] = encode_first_moment(first, m.value[i], new_m_absmax);
    v_codes.code[i] = encode_second_moment(second, v.value[i], new_v_absmax);
  }
  store_eight<F32>(args.p + run.first, run.count, p);
  store_codes(args.m + run.first, run.count, m_codes);
  store_codes(args.v + run.first, run.count, v_codes);
  if (map.writes_absmax(at)) {
    args.m_absmax[map.weight_block(at)] = new_m_absmax;
    args.v_absmax[map.weight_block(at)] = new_v_absmax;
  }
}

template <class T>
__global__ void __launch_bounds__(kBlockThreads) dropout_kernel(DropoutArgs args) {
  const Place at = here();
  const FlatMap map{args.n};
  const auto* x = static_cast<const typename T::Storage*>(args.x);
  auto* y = static_cast<typename T::Storage*>(args.y);
  for (int step = 0; step < FlatMap::kSteps; ++step) {
    const Run run = map.run(at, step);
    Eight v = load_eight<T>(x + run.first, run.count);
    for (int i = 0; i < kRunElements; i += 2) {
      const auto pair = args.first_pair + static_cast<std::uint64_t>((run.first + i) / 2);
      const std::uint64_t words = keyed_bits(args.key, pair);
      const auto low = static_cast<std::uint32_t>(words),
                 high = static_cast<std::uint32_t>(words >> 32);
      v.value[i] = low < args.threshold ? 0.0f : v.value[i] * args.keep_scale;
      v.value[i + 1] = high < args.threshold ? 0.0f : v.value[i + 1] * args.keep_scale;
    }
    store_eight<T>(y + run.first, run.count, v);
  }
}

template <class T>
__global__ void __launch_bounds__(kBlockThreads) gather_kernel(GatherRowsArgs args) {
  const Place at = here();
  const RowMap map{args.rows, args.size};
  const auto* from =
      static_cast<const typename T::Storage*>(args.table) + args.ids[map.row(at)] * args.size;
  auto* to = static_cast<typename T::Storage*>(args.out) + map.row(at) * args.size;
  for (std::int64_t step = 0; step < map.steps(); ++step) {
    const Run run = map.run(at, step);
    store_eight<T>(to + run.first, run.count, load_eight<T>(from + run.first, run.count));
  }
}

template <class From, class To>
__global__ void __launch_bounds__(kBlockThreads) convert_kernel(ConvertRowsArgs args) {
  const Place at = here();
  const RowMap map{args.to_rows, args.to_size};
  const std::int64_t row = map.row(at);
  const auto* from = static_cast<const typename From::Storage*>(args.from) + row * args.from_stride;
  auto* to = static_cast<typename To::Storage*>(args.to) + row * args.to_stride;
  for (std::int64_t step = 0; step < map.steps(); ++step) {
    const Run run = map.run(at, step);
    const int there = row < args.from_rows ? clipped_run(run.first, args.from_size).count : 0;
    store_eight<To>(to + run.first, run.count, load_eight<From>(from + run.first, there));
  }
}

}  // namespace

int sum_of_squares(const float* x, std::int64_t n, double* partial, double* total, void* stream) {
  const int error = launch(&squares_kernel, SumMap{n}.grid(), stream, x, n, partial);
  return error != cudaSuccess ? error : launch(&total_kernel, 1, stream, partial, total);
}

int adamw(const AdamWArgs& args, const NormClip& clip, void* stream) {
  return launch(&adamw_kernel, FlatMap{args.n}.grid(), stream, args, clip);
}

int adamw_8bit(const AdamW8bitArgs& args, const NormClip& clip, void* stream) {
  static constexpr DynamicMap kSigned = dynamic_map(), kUnsigned = unsigned_dynamic_map();
  return launch(&adamw_8bit_kernel, moments_map(args.n).grid(), stream, args, clip, kSigned,
                kUnsigned);
}

int dropout(const DropoutArgs& args, void* stream) {
  return with_type(args.type, [&](auto type) {
    return launch(&dropout_kernel<decltype(type)>, FlatMap{args.n}.grid(), stream, args);
  });
}

int convert_rows(const ConvertRowsArgs& args, void* stream) {
  return with_type(args.from_type, [&](auto from) {
    return with_type(args.to_type, [&](auto to) {
      return launch(&convert_kernel<decltype(from), decltype(to)>,
                    RowMap{args.to_rows, args.to_size}.grid(), stream, args);
    });
  });
}

int gather_rows(const GatherRowsArgs& args, void* stream) {
  return with_type(args.type, [&](auto type) {
    return launch(&gather_kernel<decltype(type)>, RowMap{args.rows, args.size}.grid(), stream,
                  args);
  });
}

}  // namespace lorapp::kernels::cuda
