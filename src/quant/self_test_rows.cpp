// The kernels that are no products against the scalar table's, on sizes that fill no vector.
#include "kernels/attention_args.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/rows_args.hpp"
#include "quant/aligned_buffer.hpp"
#include "quant/self_test.hpp"

#include <lorapp/error.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

namespace lorapp::detail {
namespace {

using kernels::Float;

constexpr std::int64_t kRows = 3, kSize = 37, kCount = kRows * kSize;
constexpr std::int64_t kTokens = 19, kHeads = 3, kHeadSize = 24;

// Elements of one type: numbers between -1 and 1, or space for results.
class Elements {
 public:
  Elements(Float type, std::int64_t count, std::uint32_t seed)
      : type_(type), words_(static_cast<std::size_t>(count)) {
    for (std::int64_t i = 0; i < count; ++i) {
      seed = seed * 1664525u + 1013904223u;
      set(i, (static_cast<float>(seed >> 8 & 0xffffu) + 0.5f) / 32768.0f - 1.0f);
    }
  }
  void* data() { return words_.data(); }
  float* floats() { return reinterpret_cast<float*>(words_.data()); }
  float get(std::int64_t i) const {
    if (type_ == Float::f32) return kernels::from_bits(words_[static_cast<std::size_t>(i)]);
    std::uint16_t half;
    std::memcpy(&half, reinterpret_cast<const std::uint16_t*>(words_.data()) + i, sizeof half);
    return kernels::bf16_to_f32(half);
  }

 private:
  void set(std::int64_t i, float x) {
    if (type_ == Float::f32) {
      words_[static_cast<std::size_t>(i)] = kernels::bits_of(x);
    } else {
      const std::uint16_t half = kernels::f32_to_bf16(x);
      std::memcpy(reinterpret_cast<std::uint16_t*>(words_.data()) + i, &half, sizeof half);
    }
  }
  Float type_;
  std::vector<std::uint32_t> words_;
};

// All results of one kernel.
struct Result {
  const char* kernel;
  std::vector<float> values;
};

class Run {
 public:
  Run(const kernels::KernelTable& table, Float type) : table_(table), type_(type) {
    rows();
    flat();
    attention();
  }
  std::vector<Result> results;

 private:
  Elements numbers(std::int64_t count, std::uint32_t seed) const { return {type_, count, seed}; }

  void add(const char* kernel, const Elements& elements, std::int64_t count) {
    Result result{kernel, {}};
    for (std::int64_t i = 0; i < count; ++i) result.values.push_back(elements.get(i));
    results.push_back(std::move(result));
  }

  void rows() {
    Elements x = numbers(kCount, 1), weight = numbers(kSize, 2), dy = numbers(kCount, 3);
    Elements up = numbers(kCount, 4), y = numbers(kCount, 5), dx = numbers(kCount, 6);
    Elements dup = numbers(kCount, 7);
    std::vector<float> scale(kRows), dweight(kSize);
    table_.rms_norm({x.data(), type_, kRows, kSize, weight.data(), 1e-5f, y.data(), scale.data()});
    add("rms_norm", y, kCount);
    table_.rms_norm_backward({x.data(), type_, kRows, kSize, weight.data(), scale.data(), dy.data(),
                              dx.data(), dweight.data()});
    add("rms_norm_backward", dx, kCount);
    results.push_back({"rms_norm_backward", dweight});
    table_.swiglu({x.data(), up.data(), type_, kCount, y.data()});
    add("swiglu", y, kCount);
    table_.swiglu_backward({x.data(), up.data(), dy.data(), type_, kCount, dx.data(), dup.data()});
    add("swiglu_backward", dx, kCount);
    add("swiglu_backward", dup, kCount);
    constexpr std::int64_t kWidth = 2 * kSize;
    Elements heads = numbers(kRows * kWidth, 8), turned = numbers(kRows * kWidth, 9);
    Elements cos = numbers(kCount, 10), sin = numbers(kCount, 11);
    table_.rotate({heads.data(), type_, kRows, 1, kWidth, kWidth, kWidth, cos.data(), sin.data(),
                   /*back=*/true, turned.data()});
    add("rotate", turned, kRows * kWidth);
    const std::vector<std::int64_t> labels = {0, 5, kSize - 1};
    std::vector<float> largest(kRows), sum(kRows), picked(kRows),
        scratch(kSize + kernels::kRowStep);
    table_.cross_entropy({x.data(), type_, kRows, kSize, labels.data(), /*gradient=*/true, 0.5f,
                          largest.data(), sum.data(), picked.data(), scratch.data()});
    add("cross_entropy", x, kCount);
    results.push_back({"cross_entropy", sum});
  }

  void flat() {
    Elements x = numbers(kCount, 12), y = numbers(kCount, 13);
    table_.dropout({x.data(), type_, kCount, 77, 5, 0x60000000u, 1.5f, y.data()});
    add("dropout", y, kCount);
    if (type_ != Float::f32) return;
    Elements p = numbers(kCount, 14), m = numbers(kCount, 15);
    std::vector<float> v(kCount, 0.25f);
    const AdamWStep step{0.999f, 0.98f, 0.1f, 0.02f, 0.3f, 3e-3f, 1e-8f, 0.7f};
    table_.adamw({p.floats(), x.floats(), m.floats(), v.data(), kCount, step});
    add("adamw", p, kCount);
    add("adamw", m, kCount);
    results.push_back({"adamw", v});
    results.push_back(
        {"sum_of_squares", {static_cast<float>(table_.sum_of_squares(x.floats(), kCount))}});
  }

  void attention() {
    constexpr std::int64_t kRow = kHeads * kHeadSize, kQueries = kTokens * kRow;
    constexpr std::int64_t kKeys = kTokens * kHeadSize;
    Elements q = numbers(kQueries, 16), k = numbers(kKeys, 17), v = numbers(kKeys, 18);
    Elements dout = numbers(kQueries, 19), out = numbers(kQueries, 20), dq = numbers(kQueries, 21);
    Elements dk = numbers(kKeys, 22), dv = numbers(kKeys, 23);
    const auto of_heads = [&](Elements& x) {
      return kernels::AttentionRows{x.data(), kRow, kHeadSize};
    };
    const auto of_keys = [&](Elements& x) {
      return kernels::AttentionRows{x.data(), kHeadSize, kHeadSize};
    };
    const kernels::AttentionGroup group{.type = type_,
                                        .q = of_heads(q),
                                        .k = of_keys(k),
                                        .v = of_keys(v),
                                        .queries = kTokens,
                                        .keys = kTokens,
                                        .heads = kHeads,
                                        .head_size = kHeadSize,
                                        .window = 7,
                                        .scale = 2.0f};
    std::vector<float> log_sum(kTokens * kHeads);
    const AlignedBuffer space(std::max(kernels::kForwardSpace, kernels::kBackwardSpace) * 4);
    const AlignedBuffer sums(2 * kernels::padded_keys(kTokens) *
                             kernels::padded_head_size(kHeadSize) * 4);
    table_.attention_forward({.group = group,
                              .first = 0,
                              .last = kTokens,
                              .out = of_heads(out),
                              .log_sum = log_sum.data(),
                              .log_sum_stride = kHeads,
                              .space = space.as<float>()});
    add("attention_forward", out, kQueries);
    results.push_back({"attention_forward", log_sum});
    table_.attention_backward({.group = group,
                               .out = of_heads(out),
                               .dout = of_heads(dout),
                               .log_sum = log_sum.data(),
                               .log_sum_stride = kHeads,
                               .dq = of_heads(dq),
                               .dk = of_keys(dk),
                               .dv = of_keys(dv),
                               .sums = sums.as<float>(),
                               .space = space.as<float>()});
    add("attention_backward", dq, kQueries);
    add("attention_backward", dk, kKeys);
    add("attention_backward", dv, kKeys);
    std::vector<float> decoded(kRow), maximum(kHeads), sum(kHeads);
    table_.attention_decode({.group = group,
                             .first = 0,
                             .last = kTokens,
                             .out = decoded.data(),
                             .maximum = maximum.data(),
                             .sum = sum.data(),
                             .space = space.as<float>()});
    results.push_back({"attention_decode", decoded});
    results.push_back({"attention_decode", sum});
  }

  const kernels::KernelTable& table_;
  Float type_;
};

}  // namespace

void check_rows(const kernels::KernelTable& table) {
  for (const Float type : {Float::f32, Float::bf16}) {
    // In bf16 results are rounded more than once.
    const float allowed = type == Float::f32 ? 1e-5f : 0x1p-6f;
    const Run got(table, type), want(*kernels::find_table("scalar"), type);
    for (std::size_t r = 0; r < want.results.size(); ++r) {
      for (std::size_t i = 0; i < want.results[r].values.size(); ++i) {
        const float x = got.results[r].values[i], y = want.results[r].values[i];
        LORAPP_CHECK(std::abs(x - y) <= allowed * (1 + std::abs(y)), "kernels", "the ", table.name,
                     " kernel ", want.results[r].kernel, " is wrong on this CPU: ", x,
                     ", expected ", y, kAnotherIsa);
      }
    }
  }
}

}  // namespace lorapp::detail
