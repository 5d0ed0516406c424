// Products of a few rows with a packed weight in integers: 15 bits of x, as many of the codes'
// values, a sum of each span exact but for the lowest parts. After a vocabulary of code parts
// (code_parts_<isa>.hpp), for AVX2 and up.
#pragma once

#include "kernels/vector_product.inl"

namespace lorapp::kernels {
namespace {

// Eight integers of 15 bits as bytes: the high parts of columns 0 4 1 5 2 6 3 7, then the low ones.
__m128i split_parts(__m256i x, __m256i& high, __m256i& low) {
  // The largest integer, 16320, is 127 · 128 + 64: a high part of 128 is none.
  const __m256i rounded =
      _mm256_srai_epi32(_mm256_add_epi32(x, _mm256_set1_epi32(kPartStep / 2)), kPartBits);
  high = _mm256_min_epi32(rounded, _mm256_set1_epi32(127));
  low = _mm256_sub_epi32(x, _mm256_slli_epi32(high, kPartBits));
  const __m256i both = _mm256_packs_epi32(high, low);
  const __m256i bytes = _mm256_packs_epi16(both, both);
  return _mm_unpacklo_epi8(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
}

std::int32_t sum_of_lanes(__m256i x) {
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

// The power of two by which a span with this largest magnitude is divided; 0: it has none.
float fixed_scale(std::uint32_t largest) {
  constexpr std::uint32_t kLeast = (127u - 60u) << 23, kMost = (127u + 60u) << 23;
  if (largest == 0) return 1.0f;
  if (largest < kLeast || largest > kMost) return 0.0f;
  return from_bits((largest & 0x7f800000u) - (13u << 23));
}

bool fix_rows(const FixRowsArgs& args) {
  count_call();
  std::int8_t* out = args.parts;
  FixedSpan* span = args.spans;
  for (const float* x = args.x; x < args.x + args.rows * args.columns; x += args.span, ++span) {
    __m256i largest = _mm256_setzero_si256();
    for (std::int64_t i = 0; i < args.span; i += 8) {
      const __m256i bits = load_256(x + i);
      largest = _mm256_max_epu32(largest, _mm256_and_si256(bits, _mm256_set1_epi32(0x7fffffff)));
    }
    std::uint32_t lanes[8], most = 0;
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes), largest);
    for (const std::uint32_t lane : lanes) most = lane > most ? lane : most;
    const float scale = fixed_scale(most);
    if (scale == 0.0f) return false;
    const __m256 factor = _mm256_set1_ps(1.0f / scale);
    __m256i high_sum = _mm256_setzero_si256(), low_sum = high_sum;
    for (std::int64_t i = 0; i < args.span; i += 8, out += 16) {
      __m256i high, low;
      const __m256i integers = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i), factor));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out), split_parts(integers, high, low));
      high_sum = _mm256_add_epi32(high_sum, high);
      low_sum = _mm256_add_epi32(low_sum, low);
    }
    *span = {-CodeParts::kOffset * sum_of_lanes(high_sum),
             -CodeParts::kOffset * sum_of_lanes(low_sum), scale * (kPartStep / CodeParts::kUnit)};
  }
  return true;
}

// A way of packed_vector_product.
struct InIntegers {
  template <int Rows, int Panels>
  static void group(const VectorProductArgs& args, std::int64_t panel, Scales* scales);
};

template <int Rows, int Panels>
void InIntegers::group(const VectorProductArgs& args, std::int64_t panel, Scales* scales) {
  const PackedWeight& w = *args.w;
  const CodeParts code_parts(w.value);
  const std::int64_t panel_bytes = w.columns / kLineColumns * kLineBytes;
  const std::uint8_t* lines = w.lines + panel * panel_bytes;
  constexpr int kVectors = Panels * kPanelVectors;
  Vec total[Rows][kVectors];
  for (int r = 0; r < Rows; ++r) {
    for (int v = 0; v < kVectors; ++v) total[r][v] = zero();
  }
  const std::int8_t* parts = args.fixed->parts;
  const FixedSpan* spans = args.fixed->spans;
  const std::int64_t spans_of_row = w.columns / w.span;
  for (std::int64_t k = 0; k < w.columns; k += w.span, ++spans) {
    Words high[Rows][kVectors], low[Rows][kVectors];
    for (int r = 0; r < Rows; ++r) {
      for (int v = 0; v < kVectors; ++v) {
        high[r][v] = splat_integer(spans[r * spans_of_row].high);
        low[r][v] = splat_integer(spans[r * spans_of_row].low);
      }
    }
    for (std::int64_t i = k; i < k + w.span; i += kLineColumns, lines += kLineBytes) {
      for (int v = 0; v < kVectors; ++v) {
        const std::uint8_t* line =
            lines + v / kPanelVectors * panel_bytes + v % kPanelVectors * kLanes * 4;
        if (v % kPanelVectors == 0) prefetch(line + kFetchAhead * kLineBytes);
        const auto values = code_parts.look_up(load_words(line));
        for (int r = 0; r < Rows; ++r) {
          values.multiply(parts + 2 * (r * w.columns + i), high[r][v], low[r][v]);
        }
      }
    }
    for (int v = 0; v < kVectors; ++v) {
      const Vec scale = load(scales[v / kPanelVectors].at(panel + v / kPanelVectors, k) +
                             v % kPanelVectors * kLanes);
      for (int r = 0; r < Rows; ++r) {
        const Vec sum = fma(floats_of(high[r][v]), splat(kPartStep), floats_of(low[r][v]));
        total[r][v] = fma(sum, mul(scale, splat(spans[r * spans_of_row].scale)), total[r][v]);
      }
    }
  }
  write_totals<Rows, kVectors>(args, panel, total);
}

void vector_product_of_parts(const VectorProductArgs& args) {
  if (args.fixed == nullptr) return vector_product(args);
  count_call();
  switch (args.rows) {
    case 1:
      return packed_vector_product<InIntegers, 1, kFixedPanels>(args);
    case 2:
      return packed_vector_product<InIntegers, 2, kFixedPanels>(args);
    case 3:
      return packed_vector_product<InIntegers, 3, kFewFixedPanels>(args);
    default:
      return packed_vector_product<InIntegers, 4, kFewFixedPanels>(args);
  }
}

}  // namespace
}  // namespace lorapp::kernels
