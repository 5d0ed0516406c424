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
