// Norms, rotations, SwiGLU and the loss over rows (rows_args.hpp), forward and backward.
#include "device.cuh"
#include "kernels/cuda_launch.hpp"
#include "kernels/rows_args.hpp"

namespace lorapp::kernels::cuda {
namespace {

constexpr float kMinusInfinity = -__builtin_inff();

template <class T>
__global__ void __launch_bounds__(kBlockThreads) rms_norm_kernel(RmsNormArgs args) {
  __shared__ float space[kBlockWarps];
  const Place at = here();
  const RowMap map{args.rows, args.size};
  const std::int64_t row = map.row(at);
  const auto* x = static_cast<const typename T::Storage*>(args.x) + row * args.size;
  const auto* weight = static_cast<const typename T::Storage*>(args.weight);
  auto* y = static_cast<typename T::Storage*>(args.y) + row * args.size;
  float squares = 0.0f;
  for (std::int64_t step = 0; step < map.steps(); ++step) {
    const Run run = map.run(at, step);
    const Eight v = load_eight<T>(x + run.first, run.count);
    for (int i = 0; i < kRunElements; ++i) squares = fmaf(v.value[i], v.value[i], squares);
  }
  const float mean = sum_over_block(at, squares, space) / static_cast<float>(args.size);
  const float scale = 1.0f / sqrtf(mean + args.eps);
  if (at.thread == 0 && args.scale != nullptr) {
    // 0 where the squares are too large for f32: that row has no gradient, and must not seem to.
    args.scale[row] = scale == 0.0f ? from_bits(0x7fc00000u) : scale;
  }
  for (std::int64_t step = 0; step < map.steps(); ++step) {
    const Run run = map.run(at, step);
    Eight v = load_eight<T>(x + run.first, run.count);
    const Eight w = load_eight<T>(weight + run.first, run.count);
    for (int i = 0; i < kRunElements; ++i) {
      v.value[i] = w.value[i] * rounded<T>(v.value[i] * scale);
    }
    store_eight<T>(y + run.first, run.count, v);
  }
}

template <class T>
__global__ void __launch_bounds__(kBlockThreads)
    rms_norm_backward_kernel(RmsNormBackwardArgs args) {
  __shared__ float space[kBlockWarps];
  const Place at = here();
  const RowMap map{args.rows, args.size};
  const std::int64_t begin = map.row(at) * args.size;
  const auto* x = static_cast<const typename T::Storage*>(args.x) + begin;
  const auto* dy = static_cast<const typename T::Storage*>(args.dy) + begin;
  const auto* weight = static_cast<const typename T::Storage*>(args.weight);
  auto* dx = static_cast<typename T::Storage*>(args.dx) + begin;
  const float scale = args.scale[map.row(at)];
  float sum = 0.0f;
  for (std::int64_t step = 0; step < map.steps(); ++step) {
    const Run run = map.run(at, step);
    const Eight v = load_eight<T>(x + run.first, run.count);
    const Eight w = load_eight<T>(weight + run.first, run.count);
    const Eight d = load_eight<T>(dy + run.first, run.count);
    for (int i = 0; i < kRunElements; ++i) {
      sum = fmaf(d.value[i] * w.value[i], v.value[i] * scale, sum);
    }
  }
  const float minus_mean = -sum_over_block(at, sum, space) / static_cast<float>(args.size);
  for (std::int64_t step = 0; step < map.steps(); ++step) {
    const Run run = map.run(at, step);
    const Eight v = load_eight<T>(x + run.first, run.count);
    const Eight w = load_eight<T>(weight + run.first, run.count);
    Eight d = load_eight<T>(dy + run.first, run.count);
    for (int i = 0; i < kRunElements; ++i) {
      d.value[i] = scale * fmaf(v.value[i] * scale, minus_mean, d.value[i] * w.value[i]);
    }
    store_eight<T>(dx + run.first, run.count, d);  // dx may be where dy is
  }
}

// Sums of dweight over parts of the rows.
template <class T>
__global__ void __launch_bounds__(kBlockThreads) rms_norm_weight_kernel(RmsNormBackwardArgs args) {
  __shared__ float sums[kBlockWarps][ColumnSumMap::kTile];
  const Place at = here();
  const ColumnSumMap map{args.rows, args.size};
  const Run run = map.run(at);
  const auto* x = static_cast<const typename T::Storage*>(args.x) + run.first;
  const auto* dy = static_cast<const typename T::Storage*>(args.dy) + run.first;
  Eight sum{};
  for (std::int64_t row = map.first_row(at); row < map.end_row(at); row += kBlockWarps) {
    const Eight v = load_eight<T>(x + row * args.size, run.count);
    const Eight d = load_eight<T>(dy + row * args.size, run.count);
    const float scale = args.scale[row];
    for (int i = 0; i < kRunElements; ++i) {
      sum.value[i] += d.value[i] * rounded<T>(v.value[i] * scale);
    }
  }
  store_eight<F32>(&sums[map.warp(at)][map.run_in_tile(at)], kRunElements, sum);
  __syncthreads();
  if (map.column(at) >= args.size) return;
  float total = 0.0f;
  for (int warp = 0; warp < kBlockWarps; ++warp) total += sums[warp][at.thread];
  args.scratch[map.part(at) * args.size + map.column(at)] = total;
}

// dweight += what the parts have, a column a thread.
__global__ void __launch_bounds__(kBlockThreads)
    add_parts_kernel(const float* parts, ColumnSumMap map, float* dweight) {
  const std::int64_t column = ElementMap{map.size}.element(here());
  if (column >= map.size) return;
  float sum = 0.0f;
  for (std::int64_t part = 0; part < map.parts(); ++part) sum += parts[part * map.size + column];
  dweight[column] += sum;
}

template <class T>
__global__ void __launch_bounds__(kBlockThreads) rotate_kernel(RotateArgs args, RotateMap map) {
  const RotateMap::Part part = map.part(here());
  const int count = part.run.count;
  if (count == 0) return;
  const std::int64_t half = args.size / 2, first = part.run.first;
  const auto* x = static_cast<const typename T::Storage*>(args.x) + part.token * args.token_stride +
                  part.head * args.head_stride + first;
  auto* y = static_cast<typename T::Storage*>(args.y) + rotated_begin(args, part.token, part.head) +
            first;
  const std::int64_t angle = part.token * half + first;
  const Eight a = load_eight<T>(x, count), b = load_eight<T>(x + half, count);
  if (args.cos == nullptr) {
    store_eight<T>(y, count, a);
    store_eight<T>(y + half, count, b);
    return;
  }
  const Eight c = load_eight<T>(static_cast<const typename T::Storage*>(args.cos) + angle, count);
  const Eight s = load_eight<T>(static_cast<const typename T::Storage*>(args.sin) + angle, count);
  const float sign = args.back ? -1.0f : 1.0f;
  Eight low, high;
  for (int i = 0; i < kRunElements; ++i) {
    const float sine = s.value[i] * sign;
    low.value[i] = rounded<T>(a.value[i] * c.value[i]) - rounded<T>(b.value[i] * sine);
    high.value[i] = rounded<T>(b.value[i] * c.value[i]) + rounded<T>(a.value[i] * sine);
  }
  store_eight<T>(y, count, low);
  store_eight<T>(y + half, count, high);
}

__device__ float one_plus_exp_of_minus(float x) { return 1.0f + expf(-x); }

template <class T>
__global__ void __launch_bounds__(kBlockThreads)
    swiglu_kernel(SwiGluArgs args, RowPartMap map, GateRows rows) {
  const Place at = here();
  const std::int64_t row = map.row(at);
  const auto* gate = static_cast<const typename T::Storage*>(args.gate) + row * rows.stride;
  const auto* up = static_cast<const typename T::Storage*>(args.up) + row * rows.stride;
  auto* y = static_cast<typename T::Storage*>(args.y) + row * rows.size;
  for (int step = 0; step < RowPartMap::kSteps; ++step) {
    const Run run = map.run(at, step);
    const Eight g = load_eight<T>(gate + run.first, run.count);
    Eight u = load_eight<T>(up + run.first, run.count);
    for (int i = 0; i < kRunElements; ++i) {
      u.value[i] *= rounded<T>(g.value[i] / one_plus_exp_of_minus(g.value[i]));
    }
    store_eight<T>(y + run.first, run.count, u);
  }
}

template <class T>
__global__ void __launch_bounds__(kBlockThreads)
    swiglu_backward_kernel(SwiGluBackwardArgs args, RowPartMap map, GateRows rows) {
  const Place at = here();
  const std::int64_t row = map.row(at);
  const auto* gate = static_cast<const typename T::Storage*>(args.gate) + row * rows.stride;
  const auto* up = static_cast<const typename T::Storage*>(args.up) + row * rows.stride;
  const auto* dy = static_cast<const typename T::Storage*>(args.dy) + row * rows.size;
  auto* dgate = static_cast<typename T::Storage*>(args.dgate) + row * rows.gradient_stride;
  auto* dup = static_cast<typename T::Storage*>(args.dup) + row * rows.gradient_stride;
  for (int step = 0; step < RowPartMap::kSteps; ++step) {
    const Run run = map.run(at, step);
    Eight g = load_eight<T>(gate + run.first, run.count);
    Eight u = load_eight<T>(up + run.first, run.count);
    const Eight d = load_eight<T>(dy + run.first, run.count);
    for (int i = 0; i < kRunElements; ++i) {
      const float x = g.value[i], sigma = 1.0f / one_plus_exp_of_minus(x);
      g.value[i] = d.value[i] * u.value[i] * (sigma * fmaf(x, 1.0f - sigma, 1.0f));
      u.value[i] = d.value[i] * rounded<T>(x * sigma);
    }
    store_eight<T>(dgate + run.first, run.count, g);
    store_eight<T>(dup + run.first, run.count, u);
  }
}

// What `rows` stands for with n elements in all.
GateRows rows_of(std::int64_t n, const GateRows& rows) {
  if (rows.size > 0) return rows;
  const std::int64_t all = n > 0 ? n : 1;
  return {all, all, all};
}

// The largest of the numbers seen, NaN aside, and Σ exp(number - largest).
struct Exponentials {
  float largest = kMinusInfinity;
  float sum = 0.0f;

  __device__ void add(float x) {
    const float most = fmaxf(largest, x);
    if (most != largest) sum *= expf(largest - most);
    largest = most;
    if (x != kMinusInfinity) sum += expf(x - most);
  }
};

__device__ float max_over_block(Place at, float x, float (&space)[kBlockWarps]) {
  x = max_over_lanes(x, kWarpLanes);
  if (at.thread % kWarpLanes == 0) space[at.thread / kWarpLanes] = x;
  __syncthreads();
  for (int warp = 0; warp < kBlockWarps; ++warp) x = fmaxf(x, space[warp]);
  return x;
}

template <class T>
__global__ void __launch_bounds__(kBlockThreads) cross_entropy_kernel(CrossEntropyArgs args) {
  __shared__ float maxima[kBlockWarps], sums[kBlockWarps];
  const Place at = here();
  const RowMap map{args.rows, args.size};
  const std::int64_t row = map.row(at), label = args.labels[row];
  auto* x = static_cast<typename T::Storage*>(args.logits) + row * args.size;
  Exponentials own;
  for (std::int64_t step = 0; step < map.steps(); ++step) {
    const Run run = map.run(at, step);
    const Eight v = load_eight<T>(x + run.first, run.count);
    for (int i = 0; i < run.count; ++i) own.add(v.value[i]);
  }
  const float picked = T::load(x[label]);  // before the barriers, behind which it is overwritten
  const float largest = max_over_block(at, own.largest, maxima);
  // A thread without numbers has none to scale.
  float part = own.largest == kMinusInfinity ? own.sum : own.sum * expf(own.largest - largest);
  float sum = sum_over_block(at, part, sums);
  if (largest == kMinusInfinity) sum = from_bits(0x7fc00000u);  // nothing to compare with
  if (at.thread == 0) {
    args.largest[row] = largest;
    args.sum[row] = sum;
    args.picked[row] = picked;
  }
  if (!args.gradient) return;
  const float scale = args.grad_scale / sum;
  for (std::int64_t step = 0; step < map.steps(); ++step) {
    const Run run = map.run(at, step);
    Eight v = load_eight<T>(x + run.first, run.count);
    for (int i = 0; i < kRunElements; ++i) {
      v.value[i] = expf(v.value[i] - largest) * scale;
      if (run.first + i == label) v.value[i] -= args.grad_scale;
    }
    store_eight<T>(x + run.first, run.count, v);
  }
}

}  // namespace

int rms_norm(const RmsNormArgs& args, void* stream) {
  return with_type(args.type, [&](auto type) {
    return launch(&rms_norm_kernel<decltype(type)>, RowMap{args.rows, args.size}.grid(), stream,
                  args);
  });
}

int rms_norm_backward(const RmsNormBackwardArgs& args, void* stream) {
  return with_type(args.type, [&](auto type) {
    using T = decltype(type);
    int error = cudaSuccess;
    if (args.dweight != nullptr) {  // first: dx may take the place of dy
      const ColumnSumMap map{args.rows, args.size};
      if (args.scratch == nullptr && map.scratch() > 0) return int{cudaErrorInvalidValue};
      error = launch(&rms_norm_weight_kernel<T>, map.grid(), stream, args);
      if (error == cudaSuccess) {
        error = launch(&add_parts_kernel, ElementMap{args.size}.grid(), stream, args.scratch, map,
                       args.dweight);
      }
    }
    if (error != cudaSuccess || args.dx == nullptr) return error;
    return launch(&rms_norm_backward_kernel<T>, RowMap{args.rows, args.size}.grid(), stream, args);
  });
}

int rotate(const RotateArgs& args, void* stream) {
  constexpr std::int64_t kMost = 0xffffffff;
  if (args.tokens > kMost || args.heads > kMost || args.size > kMost) return cudaErrorInvalidValue;
  const RotateMap map{static_cast<std::uint32_t>(args.tokens),
                      static_cast<std::uint32_t>(args.heads),
                      static_cast<std::uint32_t>(args.size / 2)};
  if (map.parts() > kMost) return cudaErrorInvalidValue;
  return with_type(args.type, [&](auto type) {
    return launch(&rotate_kernel<decltype(type)>, map.grid(), stream, args, map);
  });
}

int swiglu(const SwiGluArgs& args, void* stream, const GateRows& rows) {
  const GateRows own = rows_of(args.n, rows);
  const RowPartMap map{args.n / own.size, own.size};
  return with_type(args.type, [&](auto type) {
    return launch(&swiglu_kernel<decltype(type)>, map.grid(), stream, args, map, own);
  });
}

int swiglu_backward(const SwiGluBackwardArgs& args, void* stream, const GateRows& rows) {
  const GateRows own = rows_of(args.n, rows);
  const RowPartMap map{args.n / own.size, own.size};
  return with_type(args.type, [&](auto type) {
    return launch(&swiglu_backward_kernel<decltype(type)>, map.grid(), stream, args, map, own);
  });
}

int cross_entropy(const CrossEntropyArgs& args, void* stream) {
  return with_type(args.type, [&](auto type) {
    return launch(&cross_entropy_kernel<decltype(type)>, RowMap{args.rows, args.size}.grid(),
                  stream, args);
  });
}

}  // namespace lorapp::kernels::cuda
