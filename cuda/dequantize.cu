// 4-bit codes and absmax, plain or nested, → weights, into rows with a distance of their own.
#include "absmax.cuh"
#include "device.cuh"
#include "kernels/cuda_launch.hpp"

namespace lorapp::kernels::cuda {
namespace {

// 16 bytes of codes at `byte`, zeros beyond their end.
__device__ uint4 load_codes(const std::uint8_t* codes, std::int64_t byte, std::int64_t end) {
  const std::uint8_t* p = codes + byte;
  if (byte + DequantizeMap::kLaneBytes <= end && aligned_16(p)) {
    return *reinterpret_cast<const uint4*>(p);
  }
  std::uint32_t words[4] = {0, 0, 0, 0};
  for (int i = 0; i < DequantizeMap::kLaneBytes; ++i) {
    if (byte + i < end) words[i / 4] |= static_cast<std::uint32_t>(p[i]) << (i % 4 * 8);
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

// The eight weights of a word of codes, all in one block.
template <class Via>
__device__ Eight weights_of(std::uint32_t word, const float* table, float absmax) {
  Eight x;
  for (int i = 0; i < kRunElements; i += 2) {
    const std::uint32_t byte = word >> (4 * i);
    x.value[i] = rounded<Via>(table[byte >> 4 & 15] * absmax);
    x.value[i + 1] = rounded<Via>(table[byte & 15] * absmax);
  }
  return x;
}

template <class Via, class Out>
__global__ void __launch_bounds__(kBlockThreads)
    dequantize_kernel(DequantizeRowsArgs args,
                      const __grid_constant__ CodeValues values,
                      int block_shift) {
  // Sixteen banks: whatever lanes ask for, no two of them want different words of one bank.
  __shared__ float table[16];
  __shared__ uint4 codes[kBlockWarps][kWarpLanes];
  const Place at = here();
  const std::int64_t n = args.rows * args.columns;
  const DequantizeMap map{n};
  if (at.thread < 16) table[at.thread] = values.value[at.thread];
  __syncthreads();
  auto* out = static_cast<typename Out::Storage*>(args.out);
  uint4* own = codes[map.warp(at)];
  for (int tile = 0; tile < DequantizeMap::kTiles; ++tile) {
    const std::int64_t begin = map.tile_begin(at, tile);
    if (begin >= n) return;  // the whole warp
    own[map.lane(at)] = load_codes(args.codes, map.code_byte(at, begin), map.code_bytes());
    __syncwarp();
    std::int64_t first = map.run(at, begin, 0).first;
    std::int64_t row = first / args.columns, column = first % args.columns;
    for (int step = 0; step < DequantizeMap::kSteps; ++step) {
      const Run run = map.run(at, begin, step);
      if (run.count == 0) break;
      // Divided once a tile.
      column += run.first - first;
      first = run.first;
      for (; column >= args.columns; column -= args.columns) ++row;
      const std::uint32_t word = reinterpret_cast<const std::uint32_t*>(own)[map.word(at, step)];
      const auto block = static_cast<std::uint32_t>(first >> block_shift);
      const Eight x = weights_of<Via>(word, table, absmax_of(args, block));
      if (column + run.count <= args.columns) {
        store_eight<Out>(out + row * args.out_stride + column, run.count, x);
        continue;
      }
      for (int i = 0; i < kRunElements; ++i) {  // on into the next rows
        const std::int64_t behind = column + i;
        if (i < run.count) {
          out[(row + behind / args.columns) * args.out_stride + behind % args.columns] =
              Out::store(x.value[i]);
        }
      }
    }
    __syncwarp();
  }
}

}  // namespace

int dequantize_4bit(const DequantizeRowsArgs& args, void* stream) {
  // Rounding twice to one type is rounding once.
  const Float via = args.via == args.out_type ? Float::f32 : args.via;
  const std::int64_t n = args.rows * args.columns, grid = DequantizeMap{n}.grid();
  if (!blocks_fit(args)) return cudaErrorInvalidValue;
  const int shift = log2_of(args.blocksize);
  return with_type(args.out_type, [&](auto out) {
    return with_type(via, [&](auto rounded_to) {
      return launch(&dequantize_kernel<decltype(rounded_to), decltype(out)>, grid, stream, args,
                    code_values(args.value), shift);
    });
  });
}

}  // namespace lorapp::kernels::cuda
