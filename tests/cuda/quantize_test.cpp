// The CUDA codecs, emulated on the CPU, against the scalar table: byte for byte.
#include "cuda/device_memory.hpp"
#include "cuda/emulation_order.hpp"
#include "kernels/cuda_launch.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/float16.hpp"

#include <lorapp/quant/fp4.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

using namespace lorapp;
using namespace lorapp::kernels;

namespace {

constexpr Float kTypes[] = {Float::f32, Float::bf16, Float::f16};
constexpr std::int64_t kCounts[] = {1, 2, 31, 64, 65, 130, 1000, 4096, 5003};
const Codebook4 kBooks[] = {nf4_codebook(), fp4_codebook()};

const KernelTable& scalar() { return *find_table("scalar"); }

std::int64_t bytes_of(Float type) { return type == Float::f32 ? 4 : 2; }

// Normal weights, a block of zeros and one of tiny ones among them, as elements of a type.
std::vector<std::uint8_t> weights(std::int64_t n, Float type, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(n * bytes_of(type)));
  for (std::int64_t i = 0; i < n; ++i) {
    float x = normal(random);
    if (i >= 64 && i < 128) x = 0.0f;
    if (i >= 256 && i < 320) x *= 1e-38f;
    const std::uint32_t element = type == Float::f32    ? bits_of(x)
                                  : type == Float::bf16 ? f32_to_bf16(x)
                                                        : f32_to_f16(x);
    std::memcpy(bytes.data() + i * bytes_of(type), &element,
                static_cast<std::size_t>(bytes_of(type)));
  }
  return bytes;
}

struct Quantized {
  std::vector<std::uint8_t> codes;
  std::vector<float> absmax;
  std::int64_t bad = -1;
};

Quantized room_for(std::int64_t n, std::int64_t blocksize) {
  return {std::vector<std::uint8_t>(static_cast<std::size_t>((n + 1) / 2), 0xee),
          std::vector<float>(static_cast<std::size_t>((n + blocksize - 1) / blocksize), -1.0f)};
}

QuantizeArgs arguments(const void* x,
                       Float type,
                       std::int64_t n,
                       std::int64_t blocksize,
                       const Codebook4& book,
                       Quantized& out) {
  return {x, type, n, blocksize, &book, out.codes.data(), out.absmax.data()};
}

Quantized by_scalar(
    const void* x, Float type, std::int64_t n, std::int64_t blocksize, const Codebook4& book) {
  Quantized out = room_for(n, blocksize);
  out.bad = scalar().quantize_4bit(arguments(x, type, n, blocksize, book, out));
  return out;
}

Quantized by_cuda(
    const void* x, Float type, std::int64_t n, std::int64_t blocksize, const Codebook4& book) {
  Quantized out = room_for(n, blocksize);
  out.bad = test::table_cuda().quantize_4bit(arguments(x, type, n, blocksize, book, out));
  return out;
}

}  // namespace

TEST_SUITE("emulated codecs") {
  TEST_CASE(
      "quantizing gives the scalar table's codes and scales, for every type, block size and ragged "
      "length") {
    test::for_each_order([] {
      for (const Codebook4& book : kBooks) {
        for (const Float type : kTypes) {
          for (const std::int64_t blocksize : {32, 64, 256, 4096}) {
            for (const std::int64_t n : kCounts) {
              CAPTURE(blocksize);
              CAPTURE(n);
              const auto x = weights(n, type, 7);
              const Quantized expected = by_scalar(x.data(), type, n, blocksize, book);
              const Quantized found = by_cuda(x.data(), type, n, blocksize, book);
              CHECK(found.codes == expected.codes);
              CHECK(std::memcmp(found.absmax.data(), expected.absmax.data(),
                                4 * expected.absmax.size()) == 0);
              CHECK(found.bad == -1);
            }
          }
        }
      }
    });
  }

  TEST_CASE("quantizing at an odd address gives the same bytes") {
    for (const Float type : kTypes) {
      const std::int64_t n = 1000;
      const auto x = weights(n, type, 8);
      std::vector<std::uint8_t> moved(x.size() + 8);
      std::uint8_t* odd = moved.data() + bytes_of(type);
      std::memcpy(odd, x.data(), x.size());
      CHECK(by_cuda(odd, type, n, 64, kBooks[0]).codes ==
            by_scalar(x.data(), type, n, 64, kBooks[0]).codes);
    }
  }

  TEST_CASE("the first weight that is not finite is found, whatever follows it") {
    for (const float bad :
         {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
      for (const std::int64_t at : {0, 63, 64, 900, 999}) {
        std::vector<float> x(1000, 0.5f);
        x[static_cast<std::size_t>(at)] = bad;
        x[999] = -bad;
        CHECK(by_cuda(x.data(), Float::f32, 1000, 64, kBooks[0]).bad == at);
      }
    }
  }

  TEST_CASE(
      "nested scales have the scalar table's codes, around the mean that is summed in double") {
    test::for_each_order([] {
      for (const std::int64_t n : {1, 2, 255, 256, 257, 1000, 3000}) {
        CAPTURE(n);
        std::mt19937 random(3);
        std::uniform_real_distribution<float> uniform(0.01f, 0.2f);
        std::vector<float> absmax(static_cast<std::size_t>(n));
        double sum = 0;
        for (float& x : absmax) sum += x = uniform(random);
        float offset = -1;
        test::Mirror mirror;
        mirror.finish(cuda::mean(mirror.in(absmax.data(), n), n, mirror.out(&offset, 1), nullptr));
        CHECK(offset == static_cast<float>(sum / static_cast<double>(n)));

        const DynamicMap map = dynamic_map();
        const auto blocks = static_cast<std::size_t>((n + 255) / 256);
        std::vector<std::uint8_t> expected(absmax.size()), found(absmax.size());
        std::vector<float> outer(blocks), found_outer(blocks);
        scalar().quantize_nested(
            {absmax.data(), n, 256, &map, offset, expected.data(), outer.data()});
        test::table_cuda().quantize_nested(
            {absmax.data(), n, 256, &map, offset, found.data(), found_outer.data()});
        CHECK(found == expected);
        CHECK(found_outer == outer);

        std::vector<float> expanded(absmax.size()), found_expanded(absmax.size());
        scalar().expand_nested(
            {expected.data(), outer.data(), 0, n, 256, map.value, offset, expanded.data()});
        test::table_cuda().expand_nested(
            {expected.data(), outer.data(), 0, n, 256, map.value, offset, found_expanded.data()});
        CHECK(found_expanded == expanded);
      }
    });
  }

  TEST_CASE(
      "dequantizing gives the scalar table's weights, into rows with room behind them, plain and "
      "nested") {
    struct Shape {
      std::int64_t rows, columns, stride;
    };
    test::for_each_order([] {
      for (const Shape shape : {Shape{1, 1, 1},
                                {1, 64, 64},
                                {3, 7, 7},
                                {5, 64, 80},
                                {7, 33, 40},
                                {16, 128, 144},
                                {3, 1000, 1000},
                                {2, 2056, 2064},
                                {2, 6001, 6008}}) {
        for (const Float via : kTypes) {
          for (const Float out_type : kTypes) {
            for (const bool nested : {false, true}) {
              CAPTURE(shape.rows);
              CAPTURE(shape.columns);
              CAPTURE(nested);
              const std::int64_t n = shape.rows * shape.columns, size = bytes_of(out_type);
              const auto x = weights(n, via, 9);
              Quantized w = by_scalar(x.data(), via, n, 64, kBooks[0]);
              const DynamicMap map = dynamic_map();
              const auto blocks = static_cast<std::int64_t>(w.absmax.size());
              std::vector<std::uint8_t> scales(w.absmax.size());
              std::vector<float> outer(static_cast<std::size_t>((blocks + 255) / 256));
              const float offset = 0.03f;
              if (nested) {
                scalar().quantize_nested(
                    {w.absmax.data(), blocks, 256, &map, offset, scales.data(), outer.data()});
                scalar().expand_nested({scales.data(), outer.data(), 0, blocks, 256, map.value,
                                        offset, w.absmax.data()});
              }
              std::vector<std::uint8_t> expected(static_cast<std::size_t>(n * size));
              scalar().dequantize_4bit({w.codes.data(), w.absmax.data(), n, 64, kBooks[0].value,
                                        via, out_type, expected.data()});
              std::vector<std::uint8_t> found(
                  static_cast<std::size_t>(shape.rows * shape.stride * size), 0xee);
              test::Mirror mirror;
              mirror.finish(cuda::dequantize_4bit(
                  {.codes = mirror.in(w.codes.data(), (n + 1) / 2),
                   .rows = shape.rows,
                   .columns = shape.columns,
                   .blocksize = 64,
                   .value = kBooks[0].value,
                   .absmax = nested ? nullptr : mirror.in(w.absmax.data(), blocks),
                   .nested = nested ? mirror.in(scales.data(), blocks) : nullptr,
                   .nested_absmax =
                       mirror.in(outer.data(), static_cast<std::int64_t>(outer.size())),
                   .nested_blocksize = 256,
                   .map = mirror.in(map.value, 256),
                   .offset = offset,
                   .via = via,
                   .out_type = out_type,
                   .out = mirror.out(static_cast<void*>(found.data()),
                                     static_cast<std::int64_t>(found.size())),
                   .out_stride = shape.stride},
                  nullptr));
              std::int64_t wrong = 0, touched = 0;
              for (std::int64_t row = 0; row < shape.rows; ++row) {
                const auto* line = found.data() + row * shape.stride * size;
                wrong += std::memcmp(line, expected.data() + row * shape.columns * size,
                                     static_cast<std::size_t>(shape.columns * size)) != 0;
                for (std::int64_t i = shape.columns * size; i < shape.stride * size; ++i)
                  touched += line[i] != 0xee;
              }
              CHECK(wrong == 0);
              CHECK(touched == 0);
            }
          }
        }
      }
    });
  }

  TEST_CASE("block sizes that no map has are refused before anything is launched") {
    std::vector<float> x(4096);
    unsigned long long bad = ~0ull;
    for (const std::int64_t blocksize : {0, 1, 16, 48, 96, -64}) {
      Quantized out = room_for(4096, 1);
      CAPTURE(blocksize);
      CHECK(cuda::quantize_4bit(arguments(x.data(), Float::f32, 4096, blocksize, kBooks[0], out),
                                &bad, nullptr) != 0);
      cuda::DequantizeRowsArgs args{};
      args.codes = out.codes.data(), args.absmax = out.absmax.data(), args.value = kBooks[0].value;
      args.rows = 1, args.columns = args.out_stride = 4096, args.blocksize = blocksize,
      args.out = x.data();
      CHECK(cuda::dequantize_4bit(args, nullptr) != 0);
      args.blocksize = 64, args.absmax = nullptr;  // nested, in blocks of none
      CHECK(cuda::dequantize_4bit(args, nullptr) != 0);
    }
  }
}
