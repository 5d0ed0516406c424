// Products of 1 to 64 rows with 4-bit weights: bytes of codes become pairs of bf16 by a table in
// shared memory, which are tensor cores' operands as they are.
#include "absmax.cuh"
#include "device.cuh"
#include "kernels/cuda_launch.hpp"

#include <algorithm>

namespace lorapp::kernels::cuda {
namespace {

using Map = SmallProductMap;

// One table a lane, so that no two lanes of a warp ever want different words of one bank; then, in
// the same place, the sums of the warps.
union Shared {
  std::uint32_t pairs[256][kWarpLanes];
  float sums[kBlockWarps][Map::kRows * Map::kMostTokens];
};

__device__ void fill_pairs(Place at, const CodeValues& values, Shared& shared) {
  static_assert(kBlockThreads == 256);
  for (int byte = at.thread / kWarpLanes; byte < 256; byte += kBlockWarps) {
    shared.pairs[byte][at.thread % kWarpLanes] =
        pair_of(Bf16(), values.value[byte >> 4], values.value[byte & 15]);
  }
}

// Sixteen elements of a token, as B of four steps: zeros for one that is not there.
struct TokenPart {
  std::uint32_t words[Map::kLaneColumns / 2];
};
__device__ TokenPart token_at(const SmallProductArgs& args, int token, int column) {
  TokenPart part = {};
  if (token >= args.tokens) return part;
  const auto* p =
      reinterpret_cast<const uint4*>(args.x + (token * static_cast<int>(args.columns) + column));
  const uint4 low = p[0], high = p[1];
  part.words[0] = low.x, part.words[1] = low.y, part.words[2] = low.z, part.words[3] = low.w;
  part.words[4] = high.x, part.words[5] = high.y, part.words[6] = high.z, part.words[7] = high.w;
  return part;
}

// What a lane reads of a chunk of W, before it is worked with: codes and scales of its two rows.
struct Chunk {
  uint2 codes[2];
  std::uint32_t scales[2];
};

// The two rows of a lane, counted in 32 bits; the launcher sees to it that they fit.
struct Rows {
  bool is_there[2];
  std::uint32_t first_byte[2];  // of codes: the lane's in the first chunk
  std::uint32_t first_block[2];
  int block_shift;

  __device__ std::uint32_t block(int h, int column) const {
    return first_block[h] + static_cast<std::uint32_t>(column >> block_shift);
  }
};

__device__ Rows rows_of(const SmallProductArgs& args, const Map& map, Place at, int block_shift) {
  Rows rows;
  rows.block_shift = block_shift;
  for (int h = 0; h < 2; ++h) {
    const std::int64_t row = map.row(at, h);
    rows.is_there[h] = row < args.rows;
    rows.first_byte[h] = static_cast<std::uint32_t>((row * args.columns + map.column(at, 0)) / 2);
    rows.first_block[h] = static_cast<std::uint32_t>(row * (args.columns >> block_shift));
  }
  return rows;
}

template <bool WithScales>
__device__ void read_chunk(const SmallProductArgs& args,
                           const Map& map,
                           Place at,
                           const Rows& rows,
                           int chunk,
                           int chunks,
                           Chunk& to) {
  if (chunk >= chunks) return;
  for (int h = 0; h < 2; ++h) {
    if (!rows.is_there[h]) continue;
    const std::uint32_t byte =
        rows.first_byte[h] + static_cast<std::uint32_t>(chunk * (Map::kChunk / 2));
    to.codes[h] = *reinterpret_cast<const uint2*>(args.codes + byte);
    if constexpr (WithScales)
      to.scales[h] = stored_absmax(args, rows.block(h, map.column(at, chunk)));
  }
}

// Whether one launch takes several weights; the sums of many tiles leave no registers for that.
template <int Tiles>
constexpr bool kJoins = Tiles < 8;

struct Products {
  SmallProductArgs args[kMostSmallProducts];
  int block_shift[kMostSmallProducts];
  JoinedGrids grids;
};

template <int Tiles>
__global__ void __launch_bounds__(kBlockThreads, 2)
    small_product_kernel(const __grid_constant__ Products products,
                         const __grid_constant__ CodeValues values) {
  __shared__ Shared shared;
  const int part = kJoins<Tiles> ? products.grids.part(here()) : 0;
  const Place at = kJoins<Tiles> ? products.grids.within(here(), part) : here();
  const SmallProductArgs& args = products.args[part];
  const int block_shift = products.block_shift[part];
  const Map map{args.rows, args.columns};
  const int lane = at.thread % kWarpLanes, warp = at.thread / kWarpLanes;
  const Rows rows = rows_of(args, map, at, block_shift);
  const int chunks = static_cast<int>(map.chunks());
  constexpr int kAhead = Map::ahead(Tiles);
  // The sums of many tiles leave no registers for the scales, those of more than one none for x.
  constexpr bool kScalesAhead = Tiles < 8, kTokenAhead = Tiles == 1;
  // x of a tile in a chunk; zeros behind the last.
  const auto token = [&](int tile, int chunk) {
    return chunk < chunks
               ? token_at(args, tile * Map::kTileTokens + map.group(at), map.column(at, chunk))
               : TokenPart{};
  };
  float sums[Tiles][4] = {};
  // The first chunks are on their way while the table is filled.
  Chunk ring[kAhead] = {};
  for (int i = 0; i < kAhead; ++i) {
    read_chunk<kScalesAhead>(args, map, at, rows, map.chunk(at, i), chunks, ring[i]);
  }
  TokenPart next_x = {};
  if constexpr (kTokenAhead) next_x = token(0, map.chunk(at, 0));
  fill_pairs(at, values, shared);
  __syncthreads();
  for (int round = 0; map.chunk(at, round) < chunks; round += kAhead) {
    for (int i = 0; i < kAhead; ++i) {
      const int chunk = map.chunk(at, round + i);
      if (chunk >= chunks) break;
      const int column = map.column(at, chunk);
      // A block of weights does not end within a chunk. A row that is not there counts for nothing.
      float scale[2];
      for (int h = 0; h < 2; ++h) {
        const std::uint32_t block = rows.block(h, column);
        scale[h] = !rows.is_there[h] ? 0.0f
                   : kScalesAhead    ? absmax_from(args, ring[i].scales[h], block)
                                     : absmax_of(args, block);
      }
      std::uint32_t a[Map::kSteps][4];
      for (int step = 0; step < Map::kSteps; ++step) {
        for (int h = 0; h < 2; ++h) {
          const std::uint32_t word = step < 2 ? ring[i].codes[h].x : ring[i].codes[h].y;
          const std::uint32_t bytes = word >> (step % 2 * 16);
          a[step][h] = shared.pairs[bytes & 255][lane];
          a[step][h + 2] = shared.pairs[bytes >> 8 & 255][lane];
        }
      }
      read_chunk<kScalesAhead>(args, map, at, rows, map.chunk(at, round + i + kAhead), chunks,
                               ring[i]);
      TokenPart x = next_x;
      if constexpr (kTokenAhead) next_x = token(0, map.chunk(at, round + i + 1));
      for (int tile = 0; tile < Tiles; ++tile) {
        if constexpr (!kTokenAhead) x = token(tile, chunk);
        float block_sums[4] = {};
        for (int step = 0; step < Map::kSteps; ++step) {
          mma_bf16(block_sums, a[step], {x.words[2 * step], x.words[2 * step + 1]});
        }
        for (int k = 0; k < 4; ++k) {
          sums[tile][k] = fmaf(block_sums[k], scale[k / 2], sums[tile][k]);
        }
      }
    }
  }

  __syncthreads();  // the table is no longer read
  for (int tile = 0; tile < Tiles; ++tile) {
    for (int i = 0; i < 4; ++i) {
      shared.sums[warp][map.sum_token(at, tile, i) * Map::kRows + map.sum_row(at, i)] =
          sums[tile][i];
    }
  }
  __syncthreads();
  constexpr int kOutputs = Tiles * Map::kTileTokens * Map::kRows;
  for (int step = 0; map.output(at, step) < kOutputs; ++step) {
    const int output = map.output(at, step);
    const std::int64_t token = output / Map::kRows,
                       row = at.block * Map::kRows + output % Map::kRows;
    if (token >= args.tokens || row >= args.rows) continue;
    float y = 0.0f;
    for (int w = 0; w < kBlockWarps; ++w) y += shared.sums[w][output];
    if (args.bias != nullptr) y += args.bias[row];
    if (args.u != nullptr) {
      const float *u = args.u + token * args.rank, *b = args.b + row * args.rank;
      for (std::int64_t r = 0; r < args.rank; r += 4) {  // four on their way at a time
        const std::int64_t left = args.rank - r;
        float low[4], high[4];
        for (int i = 0; i < 4; ++i) {
          low[i] = i < left ? u[r + i] : 0.0f;
          high[i] = i < left ? b[r + i] : 0.0f;
        }
        for (int i = 0; i < 4; ++i) y = fmaf(low[i], high[i], y);
      }
    }
    if (args.added != nullptr) y += Bf16::load(args.added[token * args.rows + row]);
    args.y[token * args.rows + row] = Bf16::store(y);
  }
}

template <int Tiles>
int start(const SmallProductArgs* parts, int count, void* stream) {
  const int together = kJoins<Tiles> ? count : 1;
  int error = cudaSuccess;
  for (int begin = 0; begin < count && error == cudaSuccess; begin += together) {
    Products products = {};
    for (int i = 0; i < together; ++i) {
      const SmallProductArgs& args = parts[begin + i];
      products.args[i] = args;
      products.block_shift[i] = log2_of(args.blocksize);
      products.grids.add(Map{args.rows, args.columns}.grid());
    }
    error = launch(&small_product_kernel<Tiles>, products.grids.grid, stream, products,
                   code_values(parts[0].value));
  }
  return error;
}

bool is_readable(const SmallProductArgs& args) {
  return Map{args.rows, args.columns}.fits(args.tokens, args.blocksize) && aligned_16(args.x) &&
         aligned_16(args.codes) && blocks_fit(args);
}

// u[token][r] = scale · Σ x[token] · A[r], a block of threads each.
__global__ void __launch_bounds__(kBlockThreads) low_rank_kernel(LowRankRowsArgs args) {
  __shared__ float space[kBlockWarps];
  const Place at = here();
  const LowRankMap map{args.tokens, args.rank, args.columns};
  const auto* x = args.x + map.token(at) * args.columns;
  const float* a = args.a + map.rank_row(at) * args.columns;
  float sum = 0.0f;
  for (std::int64_t step = 0; step < map.columns_of_row().steps(); ++step) {
    const Run run = map.columns_of_row().run(at, step);
    const Eight v = load_eight<Bf16>(x + run.first, run.count),
                w = load_eight<F32>(a + run.first, run.count);
    for (int i = 0; i < kRunElements; ++i) sum = fmaf(v.value[i], w.value[i], sum);
  }
  sum = sum_over_block(at, sum, space);
  if (at.thread == 0) args.u[map.token(at) * args.rank + map.rank_row(at)] = args.scale * sum;
}

}  // namespace

int small_products(const SmallProductArgs* parts, int count, void* stream) {
  bool fits = count >= 1 && count <= kMostSmallProducts;
  for (int i = 0; i < count && fits; ++i) {
    fits = is_readable(parts[i]) && parts[i].tokens == parts[0].tokens &&
           std::equal(parts[i].value, parts[i].value + 16, parts[0].value);
  }
  if (!fits) return cudaErrorInvalidValue;
  const std::int64_t tokens = parts[0].tokens;
  if (tokens == 0) return cudaSuccess;
  if (tokens <= 8) return start<1>(parts, count, stream);
  if (tokens <= 16) return start<2>(parts, count, stream);
  if (tokens <= 32) return start<4>(parts, count, stream);
  return start<8>(parts, count, stream);
}

int small_product(const SmallProductArgs& args, void* stream) {
  return small_products(&args, 1, stream);
}

int low_rank_rows(const LowRankRowsArgs& args, void* stream) {
  return launch(&low_rank_kernel, LowRankMap{args.tokens, args.rank, args.columns}.grid(), stream,
                args);
}

}  // namespace lorapp::kernels::cuda
