#include "nn/attention_units.hpp"

#include "kernels/attention_args.hpp"
#include "quant/backend.hpp"
#include "quant/float_type.hpp"
#include "quant/scratch_buffer.hpp"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <atomic>
#include <cmath>

namespace lorapp::detail {
namespace {

using kernels::AttentionGroup;
using kernels::AttentionRows;

// Multiplications that are worth a thread.
constexpr std::int64_t kGrain = 1 << 20;
// Keys of one part of a decoding step: parts are added in order, however many threads there are.
constexpr std::int64_t kDecodePart = 1024;

// Rows of [token, head, element], or of [head, token, element] as a cache has them.
AttentionRows rows_of(const at::Tensor& x,
                      std::int64_t token,
                      std::int64_t head,
                      bool heads_first) {
  const std::int64_t token_stride = x.stride(heads_first ? 1 : 0);
  const std::int64_t head_stride = x.stride(heads_first ? 0 : 1);
  // Kernels only read what their arguments call inputs.
  auto* data = static_cast<char*>(const_cast<void*>(x.const_data_ptr()));
  return {data + (token * token_stride + head * head_stride) * x.element_size(), token_stride,
          head_stride};
}

at::Tensor with_plain_rows(const at::Tensor& x) { return x.stride(2) == 1 ? x : x.contiguous(); }

// A unit of work: nothing that another one writes is read or written by it.
struct Unit {
  std::int64_t begin, length;  // the rows of the sequence
  std::int64_t head;           // of the keys
  std::int64_t first, last;    // queries
  std::int64_t cost;           // pairs
};

// Σ over the queries [first, last) of the keys they see.
std::int64_t pairs_of(std::int64_t first, std::int64_t last, std::int64_t window) {
  const auto upto = [window](std::int64_t n) {  // of the queries before n
    if (window <= 0 || n <= window) return n * (n + 1) / 2;
    return window * (window + 1) / 2 + (n - window) * window;
  };
  return upto(last) - upto(first);
}

// Calls work(unit, space) for every unit, the most expensive first. Threads take the next unit when
// they are done with one. `space` is of `floats`, uninitialized, one of each thread.
template <class F>
void run_units(std::vector<Unit> units, std::int64_t work_of_pair, std::int64_t floats, F work) {
  std::stable_sort(units.begin(), units.end(),
                   [](const Unit& a, const Unit& b) { return a.cost > b.cost; });
  std::int64_t total = 0;
  for (const Unit& unit : units) total += unit.cost * work_of_pair;
  const auto count = static_cast<std::int64_t>(units.size());
  const std::int64_t threads =
      std::min({count, total / kGrain + 1, std::int64_t{at::get_num_threads()}});
  std::atomic<std::int64_t> next{0};
  at::parallel_for(0, threads, 1, [&](std::int64_t, std::int64_t) {
    const ScratchBuffer space(floats * 4);
    for (std::int64_t i; (i = next.fetch_add(1)) < count;) {
      work(units[static_cast<std::size_t>(i)], space.as<float>());
    }
  });
}

// The heads of one group in the rows from `begin`, of which there are `length` queries; all keys of
// a cache, [kv_heads, L, d], or as many as queries.
AttentionGroup group_of(const at::Tensor& q,
                        const at::Tensor& k,
                        const at::Tensor& v,
                        bool cached,
                        std::int64_t begin,
                        std::int64_t length,
                        std::int64_t head,
                        std::int64_t window) {
  const std::int64_t heads = q.size(1) / k.size(cached ? 0 : 1), size = q.size(2);
  return {.type = float_type(q.scalar_type()),
          .q = rows_of(q, begin, head * heads, false),
          .k = rows_of(k, begin, head, cached),
          .v = rows_of(v, begin, head, cached),
          .queries = length,
          .keys = cached ? k.size(1) : length,
          .heads = heads,
          .head_size = size,
          .window = window,
          .scale = static_cast<float>(1 / std::sqrt(static_cast<double>(size)))};
}

}  // namespace

bool attention_kernels_apply(const at::Tensor& q,
                             std::int64_t kv_heads,
                             const at::Tensor& k,
                             const at::Tensor& v) {
  const at::ScalarType dtype = q.scalar_type();
  const std::int64_t heads = q.size(1), size = q.size(2);
  const auto same = [&](const at::Tensor& x) {
    return x.device().is_cpu() && x.scalar_type() == dtype && x.size(2) == size;
  };
  return q.device().is_cpu() && same(k) && same(v) && has_float_type(dtype) && size % 8 == 0 &&
         size > 0 && size <= kernels::kMaxHeadSize && kv_heads > 0 && heads % kv_heads == 0 &&
         heads / kv_heads <= kernels::kMaxGroup;
}

PackedAttention packed_attention_forward(const at::Tensor& given_q,
                                         const at::Tensor& given_k,
                                         const at::Tensor& given_v,
                                         const std::vector<std::int64_t>& cu_seqlens,
                                         std::int64_t window) {
  const at::Tensor q = with_plain_rows(given_q), k = with_plain_rows(given_k),
                   v = with_plain_rows(given_v);
  const std::int64_t heads = q.size(1), size = q.size(2), group = heads / k.size(1);
  const std::int64_t step = kernels::block_queries(group);
  std::vector<Unit> units;
  for (std::size_t i = 0; i + 1 < cu_seqlens.size(); ++i) {
    const std::int64_t begin = cu_seqlens[i], length = cu_seqlens[i + 1] - begin;
    for (std::int64_t first = 0; first < length; first += step) {
      const std::int64_t last = std::min(first + step, length);
      const std::int64_t cost = pairs_of(first, last, window) * group;
      for (std::int64_t head = 0; head < k.size(1); ++head) {
        units.push_back({begin, length, head, first, last, cost});
      }
    }
  }
  PackedAttention result{at::empty({q.size(0), heads, size}, q.options()),
                         at::empty({q.size(0), heads}, q.options().dtype(at::kFloat))};
  std::atomic<std::int64_t> pairs{0};
  run_units(
      std::move(units), 2 * size, kernels::kForwardSpace, [&](const Unit& unit, float* space) {
        pairs += kernel_table().attention_forward(
            {.group = group_of(q, k, v, false, unit.begin, unit.length, unit.head, window),
             .first = unit.first,
             .last = unit.last,
             .out = rows_of(result.out, unit.begin, unit.head * group, false),
             .log_sum =
                 result.log_sum.mutable_data_ptr<float>() + unit.begin * heads + unit.head * group,
             .log_sum_stride = heads,
             .space = space});
      });
  result.pairs = pairs;
  return result;
}

AttentionGradients packed_attention_backward(const at::Tensor& given_q,
                                             const at::Tensor& given_k,
                                             const at::Tensor& given_v,
                                             const PackedAttention& forward,
                                             const at::Tensor& given_dout,
                                             const std::vector<std::int64_t>& cu_seqlens,
                                             std::int64_t window) {
  const at::Tensor q = with_plain_rows(given_q), k = with_plain_rows(given_k),
                   v = with_plain_rows(given_v), dout = with_plain_rows(given_dout);
  const std::int64_t heads = q.size(1), size = q.size(2), group = heads / k.size(1);
  std::vector<Unit> units;
  std::int64_t longest = 0;
  for (std::size_t i = 0; i + 1 < cu_seqlens.size(); ++i) {
    const std::int64_t begin = cu_seqlens[i], length = cu_seqlens[i + 1] - begin;
    if (length == 0) continue;
    longest = std::max(longest, length);
    for (std::int64_t head = 0; head < k.size(1); ++head) {
      units.push_back({begin, length, head, 0, length, pairs_of(0, length, window) * group});
    }
  }
  const auto empty = [](const at::Tensor& like) { return at::empty(like.sizes(), like.options()); };
  AttentionGradients result{empty(q), empty(k), empty(v)};
  const std::int64_t sums = 2 * kernels::padded_keys(longest) * kernels::padded_head_size(size);
  std::atomic<std::int64_t> pairs{0};
  run_units(std::move(units), 5 * size, kernels::kBackwardSpace + sums,
            [&](const Unit& unit, float* space) {
              pairs += kernel_table().attention_backward(
                  {.group = group_of(q, k, v, false, unit.begin, unit.length, unit.head, window),
                   .out = rows_of(forward.out, unit.begin, unit.head * group, false),
                   .dout = rows_of(dout, unit.begin, unit.head * group, false),
                   .log_sum = forward.log_sum.const_data_ptr<float>() + unit.begin * heads +
                              unit.head * group,
                   .log_sum_stride = heads,
                   .dq = rows_of(result.q, unit.begin, unit.head * group, false),
                   .dk = rows_of(result.k, unit.begin, unit.head, false),
                   .dv = rows_of(result.v, unit.begin, unit.head, false),
                   .sums = space + kernels::kBackwardSpace,
                   .space = space});
            });
  result.pairs = pairs;
  return result;
}

namespace {

// What one part of the keys gives for the heads of one group.
struct Part {
  std::vector<float> out, maximum, sum;
};

// The parts of one group, added: out[heads][d].
void add_parts(const Part* parts, std::size_t count, std::size_t heads, float* out) {
  const std::size_t size = parts->out.size() / heads;
  for (std::size_t h = 0; h < heads; ++h, out += size) {
    float maximum = parts[0].maximum[h];
    for (std::size_t i = 1; i < count; ++i) maximum = std::max(maximum, parts[i].maximum[h]);
    float sum = 0;
    std::fill(out, out + size, 0.0f);
    for (std::size_t i = 0; i < count; ++i) {
      const float factor = std::exp(parts[i].maximum[h] - maximum);
      sum += factor * parts[i].sum[h];
      for (std::size_t c = 0; c < size; ++c) out[c] += factor * parts[i].out[h * size + c];
    }
    for (std::size_t c = 0; c < size; ++c) out[c] /= sum;
  }
}

at::Tensor decode(const at::Tensor& q,
                  const at::Tensor& k,
                  const at::Tensor& v,
                  std::int64_t window) {
  const std::int64_t heads = q.size(1), size = q.size(2), kv_heads = k.size(0);
  const std::int64_t group = heads / kv_heads, length = k.size(1);
  const std::int64_t first = window > 0 ? std::max<std::int64_t>(0, length - window) : 0;
  const std::int64_t count = (length - first + kDecodePart - 1) / kDecodePart;
  std::vector<Part> parts(static_cast<std::size_t>(kv_heads * count));
  std::vector<Unit> units;
  for (std::int64_t head = 0; head < kv_heads; ++head) {
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t begin = first + i * kDecodePart;
      const std::int64_t end = std::min(begin + kDecodePart, length);
      units.push_back({i, length, head, begin, end, (end - begin) * group});
    }
  }
  run_units(std::move(units), 2 * size, group * kernels::kHeadStride,
            [&](const Unit& unit, float* space) {
              Part& part = parts[static_cast<std::size_t>(unit.head * count + unit.begin)];
              part.out.resize(static_cast<std::size_t>(group * size));
              part.maximum.resize(static_cast<std::size_t>(group));
              part.sum.resize(static_cast<std::size_t>(group));
              kernel_table().attention_decode({.group = group_of(q, k, v, true, 0, 1, unit.head, 0),
                                               .first = unit.first,
                                               .last = unit.last,
                                               .out = part.out.data(),
                                               .maximum = part.maximum.data(),
                                               .sum = part.sum.data(),
                                               .space = space});
            });
  const at::Tensor out = at::empty({1, heads, size}, q.options().dtype(at::kFloat));
  for (std::int64_t head = 0; head < kv_heads; ++head) {
    add_parts(parts.data() + head * count, static_cast<std::size_t>(count),
              static_cast<std::size_t>(group), out.mutable_data_ptr<float>() + head * group * size);
  }
  return out.to(q.scalar_type());
}

}  // namespace

at::Tensor cached_attention_forward(const at::Tensor& given_q,
                                    const at::Tensor& given_k,
                                    const at::Tensor& given_v,
                                    std::int64_t window) {
  const at::Tensor q = with_plain_rows(given_q), k = with_plain_rows(given_k),
                   v = with_plain_rows(given_v);
  if (q.size(0) == 1) return decode(q, k, v, window);
  const std::int64_t queries = q.size(0), heads = q.size(1), size = q.size(2);
  const std::int64_t kv_heads = k.size(0), group = heads / kv_heads, past = k.size(1) - queries;
  const std::int64_t step = kernels::block_queries(group);
  std::vector<Unit> units;
  for (std::int64_t first = 0; first < queries; first += step) {
    const std::int64_t last = std::min(first + step, queries);
    const std::int64_t cost = pairs_of(past + first, past + last, window) * group;
    for (std::int64_t head = 0; head < kv_heads; ++head) {
      units.push_back({0, queries, head, first, last, cost});
    }
  }
  const at::Tensor out = at::empty({queries, heads, size}, q.options());
  const at::Tensor log_sum = at::empty({queries, heads}, q.options().dtype(at::kFloat));
  run_units(std::move(units), 2 * size, kernels::kForwardSpace,
            [&](const Unit& unit, float* space) {
              kernel_table().attention_forward(
                  {.group = group_of(q, k, v, true, 0, queries, unit.head, window),
                   .first = unit.first,
                   .last = unit.last,
                   .out = rows_of(out, 0, unit.head * group, false),
                   .log_sum = log_sum.mutable_data_ptr<float>() + unit.head * group,
                   .log_sum_stride = heads,
                   .space = space});
            });
  return out;
}

}  // namespace lorapp::detail
