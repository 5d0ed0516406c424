// Runs one kernel of one table once, on fixed data, inside measured_part(), whose instructions
// callgrind counts:
//   lorapp_test_count_kernels TABLE KERNEL
// Without arguments it prints the names of the kernels.
#include "kernels/dispatch.hpp"
#include "kernels/float16.hpp"
#include "kernels/product_args.hpp"

#include <lorapp/quant/nf4.hpp>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

// A name that callgrind can be told; called through a pointer, so that no compiler makes a copy of
// it under another.
extern "C" void measured_part(const std::function<void()>& work) { work(); }

namespace lorapp::kernels {
namespace {

constexpr std::int64_t kRows = 96, kColumns = 384, kSpan = 64, kTokens = 24;

constexpr int kNoSuchKernel = 4;  // the exit status where a table lacks a kernel

void (*const volatile measure)(const std::function<void()>&) = &measured_part;

struct Free {
  void operator()(void* p) const { std::free(p); }
};
template <class T>
using Array = std::unique_ptr<T[], Free>;

/// Zeroed, aligned as the products want it.
template <class T>
Array<T> array(std::int64_t count) {
  const auto bytes = (static_cast<std::size_t>(count) * sizeof(T) + 63) / 64 * 64;
  void* memory = std::aligned_alloc(64, bytes);
  if (memory == nullptr) std::abort();
  return Array<T>(static_cast<T*>(std::memset(memory, 0, bytes)));
}

/// Numbers in (−1, 1) that are the same everywhere.
class Random {
 public:
  std::uint32_t bits() { return state_ = state_ * 1664525u + 1013904223u; }
  float number() { return static_cast<float>(bits() >> 8) * 0x1p-23f - 1.0f; }

 private:
  std::uint32_t state_ = 1;
};

/// What a product multiplies with.
enum class Weight { packed, dense, int8 };

struct Data {
  Codebook4 book = nf4_codebook();
  Array<float> x = array<float>(kRows * kColumns);  // a weight, or the rows of a product
  Array<std::uint8_t> codes = array<std::uint8_t>(kRows * kColumns / 2);
  Array<float> absmax = array<float>(scale_count(kRows, kColumns, kSpan));
  Array<std::uint8_t> lines = array<std::uint8_t>(line_bytes(kRows, kColumns));
  Array<float> y = array<float>(kRows * kColumns);
  PackedWeight weight{};
  DenseMatrix dense{x.get(), Float::f32, kRows, kColumns, kColumns};
  Array<std::int8_t> int8_codes = array<std::int8_t>(kRows * kColumns);
  DenseMatrix int8{int8_codes.get(), Float::f32, kRows, kColumns, kColumns, absmax.get()};

  Data() {
    Random random;
    for (std::int64_t i = 0; i < kRows * kColumns; ++i)
      x[static_cast<std::size_t>(i)] = random.number();
    for (std::int64_t i = 0; i < line_bytes(kRows, kColumns); ++i) {
      lines[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(random.bits() >> 24);
    }
    for (std::int64_t i = 0; i < scale_count(kRows, kColumns, kSpan); ++i) {
      absmax[static_cast<std::size_t>(i)] = 0.02f + 0.01f * random.number();
    }
    for (std::int64_t i = 0; i < kRows * kColumns; ++i) {
      int8_codes[static_cast<std::size_t>(i)] =
          static_cast<std::int8_t>((random.bits() >> 8) % 255 - 127);
    }
    weight.lines = lines.get();
    weight.absmax = absmax.get();
    weight.rows = kRows;
    weight.columns = kColumns;
    weight.span = kSpan;
    weight.value = book.value;
    weight.via = Float::bf16;
    weight.blocksize = kSpan;
  }

  const PackedWeight* packed_or_null(Weight kind) const {
    return kind == Weight::packed ? &weight : nullptr;
  }
  const DenseMatrix* matrix_or_null(Weight kind) const {
    return kind == Weight::packed ? nullptr : kind == Weight::dense ? &dense : &int8;
  }
};

using Kernel = void (*)(const KernelTable&, Data&);

void quantize(const KernelTable& table, Data& data) {
  QuantizeArgs args{};
  args.x = data.x.get();
  args.x_type = Float::f32;
  args.n = kRows * kColumns;
  args.blocksize = kSpan;
  args.book = &data.book;
  args.codes = data.codes.get();
  args.absmax = data.absmax.get();
  measure([&] {
    if (table.quantize_4bit(args) != -1) std::abort();
  });
}

void quantize_int8(const KernelTable& table, Data& data) {
  QuantizeInt8Args args{};
  args.x = data.x.get();
  args.x_type = Float::f32;
  args.rows = kRows;
  args.columns = args.stride = kColumns;
  args.codes = data.int8_codes.get();
  args.absmax = data.absmax.get();
  measure([&] {
    if (table.quantize_int8(args) != -1) std::abort();
  });
}

void dequantize(const KernelTable& table, Data& data) {
  DequantizeArgs args{};
  args.codes = data.lines.get();  // any bytes are codes
  args.absmax = data.absmax.get();
  args.n = kRows * kColumns;
  args.blocksize = kSpan;
  args.value = data.book.value;
  args.via = Float::bf16;
  args.out_type = Float::f32;
  args.out = data.y.get();
  measure([&] { table.dequantize_4bit(args); });
}

template <Float round, bool transposed, Weight kind = Weight::packed>
void product(const KernelTable& table, Data& data) {
  const ProductShape shape = table.product_shape(round);
  const RowTiles tiles = row_tiles(kTokens, shape.tile_rows);
  const std::int64_t depth = transposed ? kRows : kColumns, columns = transposed ? kColumns : kRows;
  const auto packed =
      array<std::uint32_t>(depth_blocks(shape, depth) * tiles.tiles * tiles.height * kDepthWords);
  const std::int64_t sum_columns = 4 * shape.tile_columns;
  const auto block = array<std::uint32_t>(kDepthWords * shape.tile_columns);
  const auto sums = array<float>(sum_rows(shape, kTokens) * sum_columns);
  PackRowsArgs rows{};
  rows.x = data.x.get();
  rows.x_type = Float::f32;
  rows.stride = depth;
  rows.rows = kTokens;
  rows.depth = rows.padded_depth = depth;
  rows.round = round;
  rows.last_tile = tiles.tiles;
  rows.out = packed.get();
  ProductArgs args{};
  args.a = packed.get();
  args.rows = kTokens;
  args.w = data.packed_or_null(kind);
  args.dense = data.matrix_or_null(kind);
  args.transposed = transposed;
  args.end = columns;
  args.round = round;
  args.y = data.y.get();
  args.y_type = Float::f32;
  args.y_stride = columns;
  args.block = block.get();
  args.sums = sums.get();
  args.sum_columns = sum_columns;
  measure([&] {
    table.pack_rows(rows);
    table.product(args);
  });
}

template <int rows, Weight kind = Weight::packed>
void vector_product(const KernelTable& table, Data& data) {
  VectorProductArgs args{};
  args.x = data.x.get();
  args.rows = rows;
  args.w = data.packed_or_null(kind);
  args.dense = data.matrix_or_null(kind);
  args.end = kRows;
  args.y = data.y.get();
  args.y_stride = kRows;
  measure([&] { table.vector_product(args); });
}

template <std::int64_t rows>
void integer_product(const KernelTable& table, Data& data) {
  if (table.fix_rows == nullptr) std::exit(kNoSuchKernel);
  for (std::int64_t i = 0; i < rows * kColumns; ++i) {
    float& x = data.x[static_cast<std::size_t>(i)];
    x = round_to(Float::bf16, x);
  }
  const auto parts = array<std::int8_t>(rows * kColumns * 2);
  const auto spans = array<FixedSpan>(rows * kColumns / kSpan);
  const FixedRows fixed{parts.get(), spans.get()};
  VectorProductArgs args{};
  args.x = data.x.get();
  args.rows = rows;
  args.w = &data.weight;
  args.end = kRows;
  args.y = data.y.get();
  args.y_stride = kRows;
  args.fixed = &fixed;
  measure([&] {
    if (!table.fix_rows({args.x, rows, kColumns, kSpan, parts.get(), spans.get()})) std::abort();
    table.vector_product(args);
  });
}

const std::map<std::string, Kernel>& kernels() {
  static const std::map<std::string, Kernel> all = {
      {"dense_product_bf16", product<Float::bf16, false, Weight::dense>},
      {"dense_vector_product_1", vector_product<1, Weight::dense>},
      {"dequantize_4bit", dequantize},
      {"int8_product_bf16", product<Float::bf16, false, Weight::int8>},
      {"int8_product_bf16_transposed", product<Float::bf16, true, Weight::int8>},
      {"int8_vector_product_1", vector_product<1, Weight::int8>},
      {"integer_product_1", integer_product<1>},
      {"product_bf16", product<Float::bf16, false>},
      {"product_bf16_transposed", product<Float::bf16, true>},
      {"product_f32", product<Float::f32, false>},
      {"product_f32_transposed", product<Float::f32, true>},
      {"quantize_4bit", quantize},
      {"quantize_int8", quantize_int8},
      {"vector_product_1", vector_product<1>},
      {"vector_product_4", vector_product<4>},
  };
  return all;
}

int run(const std::string& table_name, const std::string& kernel_name) {
  const KernelTable* table = find_table(table_name);
  const auto kernel = kernels().find(kernel_name);
  if (table == nullptr || kernel == kernels().end()) {
    std::fprintf(stderr, "no table %s in this build, or no kernel %s\n", table_name.c_str(),
                 kernel_name.c_str());
    return 2;
  }
  if (!can_run(*table)) {
    std::fprintf(stderr, "this CPU cannot run the table %s\n", table_name.c_str());
    return 3;
  }
  Data data;
  kernel->second(*table, data);
  return 0;
}

}  // namespace
}  // namespace lorapp::kernels

int main(int argc, char** argv) {
  if (argc == 3) return lorapp::kernels::run(argv[1], argv[2]);
  for (const auto& each : lorapp::kernels::kernels()) std::printf("%s\n", each.first.c_str());
  return argc == 1 ? 0 : 2;
}
