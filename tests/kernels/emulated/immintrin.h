// Stands in for the compiler's header: AVX-512 in plain C through SIMDe, so that the AVX-512
// kernels run, and are compared with the scalar ones, on any CPU. Below, what SIMDe 0.7 lacks,
// after Intel's pseudo-code.
#pragma once

#define SIMDE_NO_NATIVE
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#include <simde/x86/f16c.h>

#include <cstdint>
#include <cstring>

#ifndef __mmask16
#define __mmask16 simde__mmask16
#endif
#ifndef _CMP_GT_OQ
#define _CMP_GT_OQ SIMDE_CMP_GT_OQ
#endif
#ifndef _MM_FROUND_TO_NEAREST_INT
#define _MM_FROUND_TO_NEAREST_INT SIMDE_MM_FROUND_TO_NEAREST_INT
#endif

namespace {
namespace emulated {

// dst.lane[i] = f(i, a.lane[i]), lanes of types To and From; the lanes that have no source are
// zero.
template <class To, class From, class Dst, class Src, class F>
Dst map_lanes(const Src& source, F f) {
  constexpr std::size_t kCount = sizeof(Src) / sizeof(From) < sizeof(Dst) / sizeof(To)
                                     ? sizeof(Src) / sizeof(From)
                                     : sizeof(Dst) / sizeof(To);
  From in[sizeof(Src) / sizeof(From)];
  To out[sizeof(Dst) / sizeof(To)] = {};
  std::memcpy(in, &source, sizeof in);
  for (std::size_t i = 0; i < kCount; ++i) out[i] = static_cast<To>(f(i, in[i]));
  Dst result;
  std::memcpy(&result, out, sizeof result);
  return result;
}
constexpr auto kSame = [](std::size_t, auto lane) { return lane; };

inline __m128i cvtepi16_epi8(__m256i a) {
  return map_lanes<std::uint8_t, std::uint16_t, __m128i>(a, kSame);
}
inline __m256i cvtepi32_epi16(__m512i a) {
  return map_lanes<std::uint16_t, std::uint32_t, __m256i>(a, kSame);
}
inline __m128i cvtepi32_epi8(__m512i a) {
  return map_lanes<std::uint8_t, std::uint32_t, __m128i>(a, kSame);
}
inline __m512i cvtepu16_epi32(__m256i a) {
  return map_lanes<std::uint32_t, std::uint16_t, __m512i>(a, kSame);
}
inline __m512i cvtepu8_epi32(__m128i a) {
  return map_lanes<std::uint32_t, std::uint8_t, __m512i>(a, kSame);
}
inline __m512i cvtepu8_epi64(__m128i a) {
  return map_lanes<std::uint64_t, std::uint8_t, __m512i>(a, kSame);
}
inline __m512 cvtph_ps(__m256i a) {
  return map_lanes<float, std::uint16_t, __m512>(a, [](std::size_t, std::uint16_t half) {
    __m128i lane = _mm_set1_epi16(static_cast<short>(half));
    return _mm_cvtss_f32(_mm_cvtph_ps(lane));
  });
}
inline __m256i cvtps_ph(__m512 a) {
  return map_lanes<std::uint16_t, float, __m256i>(a, [](std::size_t, float x) {
    return _mm_cvtsi128_si32(_mm_cvtps_ph(_mm_set1_ps(x), _MM_FROUND_TO_NEAREST_INT));
  });
}
inline __m512 permutevar_ps(__m512 a, __m512i index) {
  float table[16];
  std::memcpy(table, &a, sizeof table);
  return map_lanes<float, std::uint32_t, __m512>(index, [&](std::size_t i, std::uint32_t lane) {
    return table[i / 4 * 4 + (lane & 3u)];  // within each 128-bit lane
  });
}
inline std::uint32_t reduce_max_epu32(__m512i a) {
  std::uint32_t largest = 0;
  map_lanes<std::uint32_t, std::uint32_t, __m512i>(a, [&](std::size_t, std::uint32_t lane) {
    return largest = lane > largest ? lane : largest;
  });
  return largest;
}

}  // namespace emulated
}  // namespace

#define _mm256_cvtepi16_epi8(a) emulated::cvtepi16_epi8(a)
#define _mm512_cvtepi32_epi16(a) emulated::cvtepi32_epi16(a)
#define _mm512_cvtepi32_epi8(a) emulated::cvtepi32_epi8(a)
#define _mm512_cvtepu16_epi32(a) emulated::cvtepu16_epi32(a)
#define _mm512_cvtepu8_epi32(a) emulated::cvtepu8_epi32(a)
#define _mm512_cvtepu8_epi64(a) emulated::cvtepu8_epi64(a)
#define _mm512_cvtph_ps(a) emulated::cvtph_ps(a)
#define _mm512_cvtps_ph(a, rounding) emulated::cvtps_ph(a)
#define _mm512_permutevar_ps(a, index) emulated::permutevar_ps(a, index)
#define _mm512_reduce_max_epu32(a) emulated::reduce_max_epu32(a)
