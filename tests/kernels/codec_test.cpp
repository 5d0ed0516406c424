// The formats of nf4.hpp, fp4.hpp and double_quant.hpp, against slow searches written here.
#include <lorapp/quant/double_quant.hpp>
#include <lorapp/quant/fp4.hpp>
#include <lorapp/quant/nf4.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

using namespace lorapp;

namespace {

const Codebook4 kBooks[] = {nf4_codebook(), fp4_codebook()};

std::uint32_t bits(float x) { return std::bit_cast<std::uint32_t>(x); }
float below(float x) { return std::nextafterf(x, -2.0f); }
float above(float x) { return std::nextafterf(x, 2.0f); }

// How far v is from the nearest of the 16 values, in exact arithmetic: differences of floats of
// like size are exact in double.
double nearest_distance(const Codebook4& book, double v) {
  double best = 1e9;
  for (const float value : book.value) best = std::min(best, std::abs(v - value));
  return best;
}

}  // namespace

TEST_SUITE("codec") {
  TEST_CASE("nf4: the 16 values have the published bits") {
    const std::uint32_t expected[16] = {0xbf800000, 0xbf3239b1, 0xbf066b30, 0xbeca32a0,
                                        0xbe91a24d, 0xbe3d353f, 0xbdba7871, 0x00000000,
                                        0x3da2faff, 0x3e24cae3, 0x3e7c04dd, 0x3ead033a,
                                        0x3ee1a4b8, 0x3f1007ab, 0x3f3913b3, 0x3f800000};
    for (int i = 0; i < 16; ++i) CHECK(bits(nf4_codebook().value[i]) == expected[i]);
  }

  TEST_CASE(
      "fp4: the 16 values are those of sign, two exponent bits and one mantissa bit over 12") {
    const double magnitude[8] = {0, 0.0625, 8, 12, 4, 6, 2, 3};
    for (int i = 0; i < 16; ++i) {
      const double expected = (i < 8 ? 1 : -1) * magnitude[i % 8] / 12.0;
      CHECK(fp4_codebook().value[i] == static_cast<float>(expected));
    }
    CHECK(bits(fp4_codebook().value[8]) == 0u);  // plus zero, as in bitsandbytes' table
  }

  TEST_CASE("the order of a codebook is a permutation that sorts its values") {
    for (const Codebook4& book : kBooks) {
      std::vector<int> seen(16);
      for (int r = 0; r < 16; ++r) ++seen[book.code[r]];
      CHECK(std::all_of(seen.begin(), seen.end(), [](int n) { return n == 1; }));
      for (int r = 0; r < 15; ++r) CHECK(book.value[book.code[r]] <= book.value[book.code[r + 1]]);
      for (int r = 0; r < 14; ++r) CHECK(book.threshold[r] < book.threshold[r + 1]);
    }
  }

  TEST_CASE("decode(encode(c)) returns c for all 16 values") {
    for (const Codebook4& book : kBooks) {
      for (const float value : book.value) {
        CHECK(decode4(book, encode4(book, value), 1.0f) == value);
      }
    }
  }

  TEST_CASE("at a threshold the lower value is kept, one ulp above the upper one is taken") {
    for (const Codebook4& book : kBooks) {
      for (int k = 0; k < 15; ++k) {
        const float t = book.threshold[k];
        CAPTURE(k);
        CHECK(rank4(book, below(t)) == k);
        CHECK(rank4(book, t) == k);
        CHECK(rank4(book, above(t)) == k + 1);
      }
    }
  }

  TEST_CASE("fp4: a value that rounds to zero from above has code 8, zero and the others code 0") {
    const Codebook4 book = fp4_codebook();
    CHECK(encode4(book, 0.0f) == 0);
    CHECK(encode4(book, -0.0f) == 0);
    CHECK(encode4(book, -1e-6f) == 0);
    CHECK(encode4(book, 1e-6f) == 8);
    CHECK(encode4(book, std::numeric_limits<float>::denorm_min()) == 8);
  }

  TEST_CASE("encoding finds a nearest value, up to the rounding of the midpoints") {
    std::mt19937 random(1);
    std::uniform_real_distribution<float> uniform(-1.05f, 1.05f);
    for (const Codebook4& book : kBooks) {
      int wrong = 0;
      for (int i = 0; i < 200000; ++i) {
        const float v = uniform(random);
        const double distance = std::abs(static_cast<double>(v) - book.value[encode4(book, v)]);
        // A midpoint is rounded to f32, so next to it the choice may be off by that rounding.
        if (distance > nearest_distance(book, v) + 6e-8) ++wrong;
      }
      CHECK(wrong == 0);
    }
  }

  TEST_CASE("the first element of a pair is in the high nibble") {
    CHECK(pack_nibbles(0xa, 0x3) == 0xa3);
    CHECK(unpack_nibble(0xa3, false) == 0xa);
    CHECK(unpack_nibble(0xa3, true) == 0x3);
  }

  TEST_CASE("block scales: a reciprocal, finite for every absmax; a short block divides") {
    CHECK(block_scale(2.0f) == 0.5f);
    CHECK(block_scale(3.0f) == 1.0f / 3.0f);
    CHECK(block_scale(0.0f) == 1.0f / 1e-38f);
    CHECK(std::isfinite(block_scale(std::numeric_limits<float>::denorm_min())));
    CHECK(short_block_absmax(0.0f) == 0.0f);
    CHECK(short_block_absmax(1e-40f) == 1e-38f);
    CHECK(short_block_absmax(0.75f) == 0.75f);
    CHECK(scale_in_short_block(1.0f, 3.0f) == 1.0f / 3.0f);
    CHECK(scale_in_short_block(0.0f, 0.0f) == 0.0f);
    int differ = 0;  // why it matters: the two differ in the last bit
    for (int i = 1; i < 100; ++i) {
      differ += static_cast<float>(i) / 49.0f != static_cast<float>(i) * block_scale(49.0f);
    }
    CHECK(differ > 0);
  }

  TEST_CASE("dynamic map: the embedded values are those of its algorithm") {
    // linspace(0.1, 1, 2^i + 1) in f32 with fused multiply-adds from both ends, means of
    // neighbours, scaled by 10^(i - 6); both signs, 0 and 1.
    std::vector<float> expected = {0.0f, 1.0f};
    for (int i = 0; i < 7; ++i) {
      const int n = (1 << i) + 1;
      const float step = (1.0f - 0.1f) / static_cast<float>(n - 1);
      std::vector<float> points;
      for (int j = 0; j < n; ++j) {
        points.push_back(j < n / 2 ? std::fmaf(step, static_cast<float>(j), 0.1f)
                                   : std::fmaf(-step, static_cast<float>(n - 1 - j), 1.0f));
      }
      const auto scale = static_cast<float>(std::pow(10.0, i - 6));
      for (int j = 0; j + 1 < n; ++j) {
        const float sum = points[j] + points[j + 1];
        const float mean = sum / 2.0f;
        const float value = mean * scale;
        expected.push_back(value);
        expected.push_back(-value);
      }
    }
    std::sort(expected.begin(), expected.end());
    const DynamicMap map = dynamic_map();
    REQUIRE(expected.size() == 256);
    for (int i = 0; i < 256; ++i) {
      CAPTURE(i);
      CHECK(bits(map.value[i]) == bits(expected[i]));
    }
    CHECK(map.value[127] == 0.0f);
    CHECK(map.value[255] == 1.0f);
    for (int i = 0; i < 127; ++i) CHECK(map.value[i] == -map.value[254 - i]);
  }

  TEST_CASE("dynamic map: encoding is the exact nearest value, ties to the lower") {
    const DynamicMap map = dynamic_map();
    const auto slow = [&](float v) {
      int best = 0;
      for (int i = 1; i < 256; ++i) {
        const double d = std::abs(static_cast<double>(v) - map.value[i]);
        if (d < std::abs(static_cast<double>(v) - map.value[best])) best = i;
      }
      return best;
    };
    for (int i = 0; i < 256; ++i) CHECK(encode8(map, map.value[i]) == i);
    int wrong = 0;
    for (int i = 0; i < 255; ++i) {
      const auto mid =
          static_cast<float>((static_cast<double>(map.value[i]) + map.value[i + 1]) / 2);
      for (const float v : {below(below(mid)), below(mid), mid, above(mid), above(above(mid))}) {
        wrong += encode8(map, v) != slow(v);
      }
    }
    std::mt19937 random(2);
    std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
    for (int i = 0; i < 20000; ++i) {
      const float v = uniform(random) * (i % 2 == 0 ? 1.0f : 1e-4f);
      wrong += encode8(map, v) != slow(v);
    }
    CHECK(wrong == 0);
    CHECK(encode8(map, -2.0f) == 0);
    CHECK(encode8(map, 2.0f) == 255);
    CHECK(encode8(map, 0.0f) == 127);
  }
}
