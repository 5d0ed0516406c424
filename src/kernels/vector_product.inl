// The product of a few rows with a weight, 4-bit ones decoded in registers. After product.inl.
// Bound by the reading of the weight: some panels or rows at a time, each a stream fetched ahead.
#pragma once

#include "kernels/product.inl"

namespace lorapp::kernels {
namespace {

constexpr int kPanelVectors = static_cast<int>(kPanelRows) / kLanes;
constexpr std::int64_t kFetchAhead = 16;  // lines: 1 KiB

// The ways to take the product of a packed weight differ in what they look up and sum. This one:
// in floats.
class InFloats {
 public:
  static constexpr int kPanels = kVectorPanels;         // at a time, of one row of x or two
  static constexpr int kFewPanels = kVectorPanels / 2;  // of more
  using Sum = Vec;                                      // of one span

  explicit InFloats(const VectorProductArgs& args)
      : lookup_(args.w->value), x_(args.x), columns_(args.w->columns) {}

  Sum start(int, std::int64_t) const { return zero(); }

  // Adds the codes of a line's vector v, times eight columns of x from `column` on, to the sums of
  // each row.
  template <int Rows, int Vectors>
  void add_line(const std::uint8_t* line,
                std::int64_t column,
                Sum (&sum)[Rows][Vectors],
                int v) const {
    // Loading from the next byte on takes the place of a shift by 8.
    for (int byte = 0; byte < 4; ++byte) {
      const Words words = load_words(line + byte);
      const Vec low = lookup_(words);
      const Vec high = lookup_(shift_right(words, 4));
      constexpr int kColumn[4] = {0, 4, 1, 5};  // code_shift(kColumn[byte]) is 8 · byte
      for (int r = 0; r < Rows; ++r) {
        const float* x = x_ + r * columns_ + column + kColumn[byte];
        sum[r][v] = fma(low, splat(x[0]), sum[r][v]);
        sum[r][v] = fma(high, splat(x[2]), sum[r][v]);
      }
    }
  }

  Vec add_to(Vec total, const Sum& sum, Vec scale, int, std::int64_t) const {
    return fma(sum, scale, total);
  }

 private:
  Lookup lookup_;
  const float* x_;
  std::int64_t columns_;
};

// `Panels` panels beginning at `panel`, for `Rows` rows of x.
template <class Way, int Rows, int Panels>
void vector_product_group(const VectorProductArgs& args,
                          const Way& way,
                          std::int64_t panel,
                          Scales* scales) {
  const PackedWeight& w = *args.w;
  const std::int64_t panel_bytes = w.columns / kLineColumns * kLineBytes;
  const std::uint8_t* lines = w.lines + panel * panel_bytes;
  constexpr int kVectors = Panels * kPanelVectors;
  Vec total[Rows][kVectors];
  for (int r = 0; r < Rows; ++r) {
    for (int v = 0; v < kVectors; ++v) total[r][v] = zero();
  }
  std::int64_t span = 0;
  for (std::int64_t k = 0; k < w.columns; k += w.span, ++span) {
    typename Way::Sum sum[Rows][kVectors];
    for (int r = 0; r < Rows; ++r) {
      for (int v = 0; v < kVectors; ++v) sum[r][v] = way.start(r, span);
    }
    for (std::int64_t i = k; i < k + w.span; i += kLineColumns, lines += kLineBytes) {
      for (int v = 0; v < kVectors; ++v) {
        const std::uint8_t* line =
            lines + v / kPanelVectors * panel_bytes + v % kPanelVectors * kLanes * 4;
        if (v % kPanelVectors == 0) prefetch(line + kFetchAhead * kLineBytes);
        way.add_line(line, i, sum, v);
      }
    }
    for (int v = 0; v < kVectors; ++v) {
      const Vec scale = load(scales[v / kPanelVectors].at(panel + v / kPanelVectors, k) +
                             v % kPanelVectors * kLanes);
      for (int r = 0; r < Rows; ++r)
        total[r][v] = way.add_to(total[r][v], sum[r][v], scale, r, span);
    }
  }
  for (int r = 0; r < Rows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      const std::int64_t row = panel * kPanelRows + v * kLanes;
      float sums[kLanes];
      store(sums, total[r][v]);
      for (std::int64_t n = row; n < row + kLanes && n < w.rows; ++n) {
        const float bias = args.bias != nullptr ? args.bias[n] : 0.0f;
        args.y[r * args.y_stride + n] = sums[n - row] + bias;
      }
    }
  }
}

// Calls f with the number of rows, 1 to kMaxVectorRows, as a constant.
template <class F>
void with_rows(std::int64_t rows, const F& f) {
  switch (rows) {
    case 1:
      return f.template operator()<1>();
    case 2:
      return f.template operator()<2>();
    case 3:
      return f.template operator()<3>();
    default:
      return f.template operator()<4>();
  }
}

template <class Way>
void packed_vector_product(const VectorProductArgs& args) {
  with_rows(args.rows, [&]<int Rows>() {
    constexpr int kPanels = Rows <= 2 ? Way::kPanels : Way::kFewPanels;
    const Way way(args);
    Scales scales[kPanels];
    for (Scales& each : scales) each = Scales(*args.w);
    std::int64_t panel = args.begin / kPanelRows;
    const std::int64_t last = panels_of(args.end);
    for (; panel + kPanels <= last; panel += kPanels) {
      vector_product_group<Way, Rows, kPanels>(args, way, panel, scales);
    }
    for (; panel < last; ++panel) vector_product_group<Way, Rows, 1>(args, way, panel, scales);
  });
}

// `Group` rows of a dense W, `row` and others each `distance` further, for `Rows` rows of x: as
// many dot products. Of codes a dot product is taken as they are, then multiplied by the step of
// their row.
template <class T, int Rows, int Group>
void dense_vector_group(const VectorProductArgs& args, std::int64_t row, std::int64_t distance) {
  const DenseMatrix& w = *args.dense;
  const auto* data = static_cast<const typename T::Storage*>(w.data) + row * w.stride;
  const std::int64_t apart = distance * w.stride;
  constexpr bool kCodes = std::is_same_v<T, Int8>;
  // Sums of one dot product: with few rows of x a single one would wait for itself.
  constexpr int kParts = Rows <= 2 ? 2 : 1;
  constexpr std::int64_t kColumnsOfStep = kParts * kLanes;
  Vec sum[Group][Rows][kParts];
  for (int g = 0; g < Group; ++g) {
    for (int r = 0; r < Rows; ++r) {
      for (int h = 0; h < kParts; ++h) sum[g][r][h] = zero();
    }
  }
  const auto step = [&](std::int64_t k, std::int64_t left) {
    for (int h = 0; h < kParts; ++h) {
      const std::int64_t at = k + h * kLanes;
      Vec x[Rows];
      for (int r = 0; r < Rows; ++r) {
        x[r] = load_part<F32>(args.x + r * w.columns + at, left - h * kLanes);
      }
      for (int g = 0; g < Group; ++g) {
        const Vec weights = load_part<T>(data + g * apart + at, left - h * kLanes);
        for (int r = 0; r < Rows; ++r) sum[g][r][h] = fma(weights, x[r], sum[g][r][h]);
      }
    }
  };
  constexpr std::int64_t kAhead = 2048 / static_cast<int>(sizeof(typename T::Storage));
  std::int64_t k = 0;
  if constexpr (kCodes) {
    for (; k + 64 <= w.columns; k += 64) {  // a line of codes for each that is fetched
      for (int g = 0; g < Group; ++g) prefetch(data + g * apart + k + kAhead);
      for (std::int64_t i = 0; i < 64; i += kColumnsOfStep) step(k + i, kColumnsOfStep);
    }
  }
  for (; k + kColumnsOfStep <= w.columns; k += kColumnsOfStep) {
    for (int g = 0; g < Group; ++g) prefetch(data + g * apart + k + kAhead);
    step(k, kColumnsOfStep);
  }
  if (k < w.columns) step(k, w.columns - k);
  for (int g = 0; g < Group; ++g) {
    for (int r = 0; r < Rows; ++r) {
      const std::int64_t n = row + g * distance;
      const float bias = args.bias != nullptr ? args.bias[n] : 0.0f;
      const Vec both = kParts == 2 ? add(sum[g][r][0], sum[g][r][kParts - 1]) : sum[g][r][0];
      float total = lane_sum(both);
      if constexpr (kCodes) total *= int8_step(w.absmax[n]);
      args.y[r * args.y_stride + n] = total + bias;
    }
  }
}

template <class T, int Rows, int Group>
void dense_vector_product(const VectorProductArgs& args) {
  // The rows of a group lie far apart, so that each is one long stream through memory, from row to
  // row, whatever their length.
  const std::int64_t part = (args.end - args.begin) / Group;
  for (std::int64_t i = 0; i < part; ++i) {
    dense_vector_group<T, Rows, Group>(args, args.begin + i, part);
  }
  for (std::int64_t row = args.begin + part * Group; row < args.end; ++row) {
    dense_vector_group<T, Rows, 1>(args, row, 0);
  }
}

template <int Rows>
void dense_vector_product_rows(const VectorProductArgs& args) {
  if (args.dense->absmax != nullptr) return dense_vector_product<Int8, Rows, kVectorPanels>(args);
  switch (args.dense->type) {
    case Float::f32:
      return dense_vector_product<F32, Rows, kVectorPanels>(args);
    case Float::bf16:
      return dense_vector_product<Bf16, Rows, kVectorPanels>(args);
    case Float::f16:
      return dense_vector_product<F16, Rows, kVectorPanels>(args);
  }
}

void vector_product(const VectorProductArgs& args) {
  count_call();
  if (args.w != nullptr) return packed_vector_product<InFloats>(args);
  with_rows(args.rows, [&]<int Rows>() { dense_vector_product_rows<Rows>(args); });
}

}  // namespace
}  // namespace lorapp::kernels
