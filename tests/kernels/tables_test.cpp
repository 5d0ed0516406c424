// Every table against the scalar one, bit by bit, on raw memory; the conversions of float16.hpp.
// With SIMDe installed the AVX-512 bodies run here on any CPU, as the table avx512_emulated; CUDA's
// run emulated, as the table cuda.
#include "kernels/dispatch.hpp"
#include "kernels/float16.hpp"
#include "kernels/tables_under_test.hpp"

#include <lorapp/quant/fp4.hpp>

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

namespace lorapp::kernels {
namespace {

constexpr Float kTypes[] = {Float::f32, Float::bf16, Float::f16};
const Codebook4 kBooks[] = {nf4_codebook(), fp4_codebook()};

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// An array of one element type, at an address that is not aligned to vectors.
struct Array {
  Float type;
  std::int64_t n;
  std::vector<std::uint8_t> bytes;

  Array(Float t, std::int64_t count)
      : type(t), n(count), bytes(static_cast<std::size_t>(count * size() + 4), 0xcd) {}
  std::int64_t size() const { return type == Float::f32 ? 4 : 2; }
  void* data() { return bytes.data() + 4; }
  float get(std::int64_t i) const {
    float f;
    std::uint16_t h;
    if (type == Float::f32) {
      std::memcpy(&f, bytes.data() + 4 + i * 4, 4);
      return f;
    }
    std::memcpy(&h, bytes.data() + 4 + i * 2, 2);
    return type == Float::bf16 ? bf16_to_f32(h) : f16_to_f32(h);
  }
  void set(std::int64_t i, float x) {
    if (type == Float::f32) {
      std::memcpy(bytes.data() + 4 + i * 4, &x, 4);
    } else {
      const std::uint16_t h = type == Float::bf16 ? f32_to_bf16(x) : f32_to_f16(x);
      std::memcpy(bytes.data() + 4 + i * 2, &h, 2);
    }
  }
};

// Weights that try every corner: normal ones of all sizes, subnormals, zero blocks, values right at
// and beside the thresholds, block maxima whose reciprocal would overflow.
Array weights(Float type, std::int64_t n, std::int64_t blocksize, const Codebook4& book, int seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Array x(type, n);
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int64_t block = i / blocksize;
    const float scales[] = {1.0f, 0.02f, 3e4f, 1e-4f, 1e-38f, 1e-40f, 0.0f, 1e-44f, 6e-8f};
    const float scale = scales[block % 9];
    float v = normal(random);
    if (block % 3 == 1) {  // next to thresholds: the block's first element makes its absmax `scale`
      const float t = book.threshold[random() % 15];
      v = i % blocksize == 0 ? 1.0f : std::nextafterf(t, static_cast<int>(random() % 3) - 1.0f);
    }
    v *= scale;
    if (type == Float::f16 && std::abs(v) > 65504.0f) v = std::copysign(65504.0f, v);
    x.set(i, v);
  }
  return x;
}

struct Quantized {
  std::int64_t status;
  std::vector<std::uint8_t> codes;
  std::vector<float> absmax;
};

Quantized quantize(const KernelTable& table,
                   Array& x,
                   std::int64_t blocksize,
                   const Codebook4& book) {
  Quantized q;
  q.codes.assign(static_cast<std::size_t>(ceil_div(x.n, 2)), 0xee);
  q.absmax.assign(static_cast<std::size_t>(ceil_div(x.n, blocksize)), -1.0f);
  q.status = table.quantize_4bit(
      {x.data(), x.type, x.n, blocksize, &book, q.codes.data(), q.absmax.data()});
  return q;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

constexpr std::int64_t kSizes[] = {1, 2, 31, 32, 33, 63, 64, 65, 96, 127, 4096, 4097, 12345};

TEST_SUITE("tables") {
  TEST_CASE("quantize: every table gives the scalar codes and absmax") {
    const KernelTable& scalar = *find_table("scalar");
    for (const KernelTable* table : tables_under_test()) {
      for (const Float type : kTypes) {
        for (const Codebook4& book : kBooks) {
          for (const std::int64_t blocksize : {32, 64, 128, 1024, 4096}) {
            for (const std::int64_t n : kSizes) {
              Array x = weights(type, n, blocksize, book, static_cast<int>(n));
              const Quantized want = quantize(scalar, x, blocksize, book);
              const Quantized got = quantize(*table, x, blocksize, book);
              INFO(table->name, " type ", static_cast<int>(type), " blocksize ", blocksize, " n ",
                   n);
              REQUIRE(want.status == -1);
              REQUIRE(got.status == -1);
              REQUIRE(got.codes == want.codes);
              REQUIRE(same_bits(got.absmax, want.absmax));
            }
          }
        }
      }
    }
  }

  TEST_CASE(
      "quantize_int8: every table gives the formula's codes and absmax, for rows of any size") {
    constexpr std::int64_t kRows = 9, kGap = 3;
    for (const KernelTable& table : compiled_tables()) {
      if (!can_run(table)) continue;
      for (const Float type : kTypes) {
        for (const std::int64_t columns : {1, 2, 7, 16, 31, 32, 33, 64, 100, 257}) {
          // A row is a block of weights(): all sizes, zeros, reciprocals that overflow.
          const std::int64_t stride = columns + kGap;
          Array x = weights(type, kRows * stride, stride, kBooks[0], static_cast<int>(columns));
          std::vector<std::int8_t> codes(static_cast<std::size_t>(kRows * columns), 99);
          std::vector<float> absmax(kRows, -1.0f);
          INFO(table.name, " type ", static_cast<int>(type), " columns ", columns);
          REQUIRE(table.quantize_int8(
                      {x.data(), type, kRows, columns, stride, codes.data(), absmax.data()}) == -1);
          for (std::int64_t r = 0; r < kRows; ++r) {
            float largest = 0.0f;
            for (std::int64_t k = 0; k < columns; ++k) {
              largest = std::max(largest, std::abs(x.get(r * stride + k)));
            }
            REQUIRE(absmax[static_cast<std::size_t>(r)] == largest);
            const float factor = 1.0f / largest * 127.0f;
            for (std::int64_t k = 0; k < columns; ++k) {
              const float v = x.get(r * stride + k);
              const float scaled = largest == 0.0f         ? 0.0f
                                   : std::isfinite(factor) ? v * factor
                                                           : v / largest * 127.0f;
              REQUIRE(codes[static_cast<std::size_t>(r * columns + k)] == std::nearbyint(scaled));
            }
          }
        }
      }
    }
  }

  TEST_CASE("quantize_int8: the first weight that is not finite is reported, wherever it is") {
    for (const KernelTable& table : compiled_tables()) {
      if (!can_run(table)) continue;
      for (const Float type : kTypes) {
        for (const float bad : {std::numeric_limits<float>::infinity(), std::nanf("")}) {
          for (const std::int64_t at : {0, 34, 35, 69, 104}) {
            Array x(type, 105);
            for (std::int64_t i = 0; i < x.n; ++i) x.set(i, 0.5f);
            x.set(at, bad);
            x.set(104, bad);
            std::vector<std::int8_t> codes(105);
            std::vector<float> absmax(3);
            CHECK(table.quantize_int8({x.data(), type, 3, 35, 35, codes.data(), absmax.data()}) ==
                  at);
          }
        }
      }
    }
  }

  TEST_CASE("quantize: the scalar table is the formula, element by element") {
    const std::int64_t blocksize = 64, n = 64 * 20 + 37;
    for (const Float type : kTypes) {
      for (const Codebook4& book : kBooks) {
        Array x = weights(type, n, blocksize, book, 5);
        const Quantized got = quantize(*find_table("scalar"), x, blocksize, book);
        for (std::int64_t i = 0; i < n; ++i) {
          const auto load = [&](std::int64_t j) {
            std::uint16_t h;
            float f;
            std::memcpy(&f, x.bytes.data() + 4 + j * (type == Float::f32 ? 4 : 0), 4);
            std::memcpy(&h, x.bytes.data() + 4 + j * 2, 2);
            return type == Float::f32 ? f : type == Float::bf16 ? bf16_to_f32(h) : f16_to_f32(h);
          };
          const std::int64_t b = i / blocksize, end = std::min(n, (b + 1) * blocksize);
          float absmax = 0.0f;
          for (std::int64_t j = b * blocksize; j < end; ++j)
            absmax = std::max(absmax, std::abs(load(j)));
          const float floor = std::max(absmax, 1e-38f);
          const bool whole = end - b * blocksize == blocksize;
          const float reciprocal = 1.0f / floor;
          const float v = whole ? load(i) * reciprocal : load(i) / floor;
          int rank = 0;
          while (rank < 15 && v > book.threshold[rank]) ++rank;
          const int code = i % 2 == 0 ? got.codes[i / 2] >> 4 : got.codes[i / 2] & 15;
          REQUIRE(code == book.code[rank]);
          REQUIRE(got.absmax[b] == (whole || absmax == 0.0f ? absmax : floor));
        }
      }
    }
  }

  TEST_CASE(
      "quantize: an all-zero block has absmax 0 and the code of zero, an odd tail is padded with "
      "it") {
    for (const KernelTable* table : tables_under_test()) {
      for (const Codebook4& book : kBooks) {
        const int zero = book.value[0] == 0.0f ? 0 : 7;
        Array x(Float::bf16, 64 + 5);
        for (std::int64_t i = 0; i < x.n; ++i) x.set(i, i % 2 == 0 ? 0.0f : -0.0f);
        const Quantized q = quantize(*table, x, 64, book);
        for (const std::uint8_t byte : q.codes) CHECK(byte == zero * 17);
        CHECK(same_bits(q.absmax, {0.0f, 0.0f}));
      }
    }
  }

  TEST_CASE("quantize: the first weight that is not finite is reported, in full and short blocks") {
    const float inf = std::numeric_limits<float>::infinity();
    for (const KernelTable* table : tables_under_test()) {
      for (const Float type : kTypes) {
        for (const float bad : {inf, -inf, std::nanf("")}) {
          for (const std::int64_t at : {0, 63, 64, 100, 128, 130}) {
            Array x(type, 131);
            for (std::int64_t i = 0; i < x.n; ++i) x.set(i, 0.5f);
            x.set(at, bad);
            x.set(130, bad);
            CHECK(quantize(*table, x, 64, kBooks[0]).status == at);
          }
        }
      }
    }
  }

  TEST_CASE(
      "dequantize: every table gives the scalar values, whatever they are rounded by on the way") {
    std::mt19937 random(3);
    for (const KernelTable* table : tables_under_test()) {
      for (const Codebook4& book : kBooks) {
        for (const std::int64_t blocksize : {32, 64, 4096}) {
          for (const std::int64_t n : kSizes) {
            std::vector<std::uint8_t> codes(static_cast<std::size_t>(ceil_div(n, 2)));
            for (auto& byte : codes) byte = static_cast<std::uint8_t>(random());
            const float inf = std::numeric_limits<float>::infinity();
            const float scales[] = {1.0f,  0.0173f, 0.0f,          1e-38f, 1e-44f,
                                    3e38f, inf,     std::nanf(""), 7e4f,   3e-8f};
            std::vector<float> absmax(static_cast<std::size_t>(ceil_div(n, blocksize)));
            for (auto& a : absmax)
              a = scales[random() % 10] * (1.0f + 1e-3f * static_cast<float>(random() % 99));
            for (const Float via : kTypes) {
              for (const Float type : kTypes) {
                Array want(type, n), got(type, n);
                find_table("scalar")->dequantize_4bit({codes.data(), absmax.data(), n, blocksize,
                                                       book.value, via, type, want.data()});
                table->dequantize_4bit(
                    {codes.data(), absmax.data(), n, blocksize, book.value, via, type, got.data()});
                INFO(table->name, " via ", static_cast<int>(via), " type ", static_cast<int>(type),
                     " blocksize ", blocksize, " n ", n);
                REQUIRE(got.bytes == want.bytes);
              }
            }
          }
        }
      }
    }
  }

  TEST_CASE(
      "dequantize: the scalar table is code times absmax, rounded to one type and then another") {
    const std::int64_t n = 1000;
    std::mt19937 random(4);
    std::vector<std::uint8_t> codes(n / 2);
    for (auto& byte : codes) byte = static_cast<std::uint8_t>(random());
    std::vector<float> absmax(ceil_div(n, 64));
    for (auto& a : absmax) a = std::exp(std::normal_distribution<float>()(random));
    const Codebook4& book = kBooks[0];
    Array out(Float::f32, n);
    find_table("scalar")->dequantize_4bit(
        {codes.data(), absmax.data(), n, 64, book.value, Float::bf16, Float::f32, out.data()});
    for (std::int64_t i = 0; i < n; ++i) {
      const int code = i % 2 == 0 ? codes[i / 2] >> 4 : codes[i / 2] & 15;
      float got;
      std::memcpy(&got, out.bytes.data() + 4 + i * 4, 4);
      REQUIRE(got == static_cast<float>(c10::BFloat16(book.value[code] * absmax[i / 64])));
    }
  }

  TEST_CASE("nested absmax: every table gives the scalar bytes and values") {
    const DynamicMap map = dynamic_map();
    std::mt19937 random(6);
    for (const KernelTable* table : tables_under_test()) {
      for (const std::int64_t n : {1, 255, 256, 257, 1000}) {
        std::vector<float> absmax(static_cast<std::size_t>(n));
        for (auto& a : absmax) a = std::exp(std::normal_distribution<float>()(random));
        const auto run = [&](const KernelTable& t) {
          std::vector<std::uint8_t> codes(static_cast<std::size_t>(n));
          std::vector<float> nested(static_cast<std::size_t>(ceil_div(n, 256))), back(codes.size());
          t.quantize_nested({absmax.data(), n, 256, &map, 1.25f, codes.data(), nested.data()});
          t.expand_nested({codes.data(), nested.data(), 0, n, 256, map.value, 1.25f, back.data()});
          std::vector<float> all(codes.begin(), codes.end());
          all.insert(all.end(), nested.begin(), nested.end());
          all.insert(all.end(), back.begin(), back.end());
          return all;
        };
        CHECK(same_bits(run(*table), run(*find_table("scalar"))));
      }
    }
  }

  TEST_CASE("f16 and bf16 widen to the values that LibTorch gives, all 65536 patterns") {
    int wrong = 0;
    for (std::uint32_t h = 0; h < 65536; ++h) {
      const auto half = static_cast<std::uint16_t>(h);
      const float f = f16_to_f32(half), want_f = c10::Half(half, c10::Half::from_bits());
      const float b = bf16_to_f32(half), want_b = c10::BFloat16(half, c10::BFloat16::from_bits());
      wrong += std::isnan(want_f) ? !std::isnan(f) : f != want_f;
      wrong += std::isnan(want_b) ? !std::isnan(b) : b != want_b;
    }
    CHECK(wrong == 0);
  }

  TEST_CASE("f32 narrows as LibTorch does: all exponents, ties, overflow, subnormals, NaN") {
    int wrong = 0;
    const auto check = [&](float x) {
      const c10::Half half(x);
      const c10::BFloat16 brain(x);
      if (std::isnan(x)) {
        wrong += !std::isnan(f16_to_f32(f32_to_f16(x))) || f32_to_bf16(x) != 0x7fc0;
      } else {
        wrong += f32_to_f16(x) != half.x || f32_to_bf16(x) != brain.x;
      }
    };
    for (std::uint32_t h = 0; h < 65536; ++h) {  // every f16 and bf16, its neighbours, and the ties
      for (const std::uint32_t low :
           {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu, 0x1000u, 0x0fffu, 0x1001u}) {
        check(std::bit_cast<float>(h << 16 | low));
      }
      const float f = f16_to_f32(static_cast<std::uint16_t>(h));
      const float g = f16_to_f32(static_cast<std::uint16_t>(h + 1));
      if (std::isfinite(f) && std::isfinite(g)) {
        const float mid = (f + g) / 2;
        check(mid);
        check(std::nextafterf(mid, -1e9f));
        check(std::nextafterf(mid, 1e9f));
      }
    }
    check(65519.996f);
    check(65520.0f);
    CHECK(wrong == 0);
  }
}

}  // namespace
}  // namespace lorapp::kernels
