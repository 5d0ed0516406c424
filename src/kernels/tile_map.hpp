// Which thread of a CUDA launch loads and stores what: integers only, so that tests on the CPU can
// walk every block, thread and step. Device code takes all of its indices from here. C++17.
#pragma once

#include <lorapp/host_device.hpp>

#include <cstdint>

namespace lorapp::kernels {

inline constexpr int kWarpLanes = 32;
inline constexpr int kBlockThreads = 256;  // of every launch, unless its map says otherwise
inline constexpr int kBlockWarps = kBlockThreads / kWarpLanes;

/// Elements that a thread loads or stores at a time: 16 bytes of 16-bit ones.
inline constexpr int kRunElements = 8;

/// A thread of a launch with one dimension.
struct Place {
  std::int64_t block;
  int thread;
};

/// The elements [first, first + count), at most kRunElements; none where count is 0.
struct Run {
  std::int64_t first;
  int count;
};

/// What is left of a run from `first` of which the elements from `end` on are not there.
LORAPP_HD Run clipped_run(std::int64_t first, std::int64_t end) {
  const std::int64_t left = end - first;
  return {first, static_cast<int>(left < 0 ? 0 : left < kRunElements ? left : kRunElements)};
}

LORAPP_HD std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

/// Of a power of two.
LORAPP_HD int log2_of(std::int64_t x) {
  int shift = 0;
  while (std::int64_t{1} << shift < x) ++shift;
  return shift;
}

/// Blocks of weights: a power of two, at least `least`.
LORAPP_HD bool is_blocksize(std::int64_t blocksize, std::int64_t least = 32) {
  return blocksize >= least && (blocksize & (blocksize - 1)) == 0;
}

/// Quantizing to 4 bits: `lanes` neighbouring threads share a block of weights, and take a run each
/// in every step. `blocksize` is a power of two, at least 32.
struct QuantizeMap {
  std::int64_t n;
  std::int64_t blocksize;

  LORAPP_HD int lanes() const {
    return blocksize / kRunElements < kWarpLanes ? static_cast<int>(blocksize / kRunElements)
                                                 : kWarpLanes;
  }
  LORAPP_HD int steps() const { return static_cast<int>(blocksize / (kRunElements * lanes())); }
  LORAPP_HD std::int64_t grid() const {
    return ceil_div(ceil_div(n, blocksize), kBlockThreads / lanes());
  }
  LORAPP_HD std::int64_t weight_block(Place at) const {
    return at.block * (kBlockThreads / lanes()) + at.thread / lanes();
  }
  LORAPP_HD bool writes_absmax(Place at) const {
    return at.thread % lanes() == 0 && weight_block(at) * blocksize < n;
  }
  LORAPP_HD Run run(Place at, int step) const {
    const std::int64_t begin = weight_block(at) * blocksize;
    return clipped_run(begin + (step * lanes() + at.thread % lanes()) * kRunElements, n);
  }
};

/// Moments in 8 bits: a warp takes a block of them, a run a lane, as in quantizing blocks of
/// kMomentBlock.
LORAPP_HD QuantizeMap moments_map(std::int64_t n) { return {n, kWarpLanes * kRunElements}; }

/// Dequantizing: a warp takes tiles of 1024 weights. A lane loads 16 bytes of their codes, the warp
/// puts them side by side, and in each of four steps a lane stores the weights of one word, next to
/// its neighbours'.
struct DequantizeMap {
  static constexpr int kTileWeights = 1024;
  static constexpr int kLaneBytes = 16;
  static constexpr int kSteps = kTileWeights / (kWarpLanes * kRunElements);
  static constexpr int kTiles = 2;  // of a warp

  std::int64_t n;

  LORAPP_HD std::int64_t grid() const { return ceil_div(n, kTileWeights * kTiles * kBlockWarps); }
  LORAPP_HD int warp(Place at) const { return at.thread / kWarpLanes; }
  LORAPP_HD int lane(Place at) const { return at.thread % kWarpLanes; }
  /// Neighbouring warps take neighbouring tiles.
  LORAPP_HD std::int64_t tile_begin(Place at, int tile) const {
    return ((at.block * kTiles + tile) * kBlockWarps + warp(at)) * kTileWeights;
  }
  /// The first byte of codes that a lane loads of a tile that begins at weight `begin`.
  LORAPP_HD std::int64_t code_byte(Place at, std::int64_t begin) const {
    return begin / 2 + lane(at) * kLaneBytes;
  }
  LORAPP_HD std::int64_t code_bytes() const { return (n + 1) / 2; }
  /// Which word of the tile's codes a lane turns into weights, and their run.
  LORAPP_HD int word(Place at, int step) const { return step * kWarpLanes + lane(at); }
  LORAPP_HD Run run(Place at, std::int64_t begin, int step) const {
    return clipped_run(begin + std::int64_t{word(at, step)} * kRunElements, n);
  }
};

/// Flat buffers: a thread takes runs that lie a whole launch's apart.
struct FlatMap {
  static constexpr int kSteps = 4;

  std::int64_t n;

  LORAPP_HD std::int64_t grid() const {
    return ceil_div(n, std::int64_t{kRunElements} * kBlockThreads * kSteps);
  }
  LORAPP_HD Run run(Place at, int step) const {
    const std::int64_t index = (at.block * kSteps + step) * kBlockThreads + at.thread;
    return clipped_run(index * kRunElements, n);
  }
};

/// Rows: a block of threads takes one row, a run a thread and step. Places are in the row.
struct RowMap {
  std::int64_t rows;
  std::int64_t size;

  LORAPP_HD std::int64_t grid() const { return rows; }
  LORAPP_HD std::int64_t row(Place at) const { return at.block; }
  LORAPP_HD std::int64_t steps() const {
    return ceil_div(size, std::int64_t{kRunElements} * kBlockThreads);
  }
  LORAPP_HD Run run(Place at, std::int64_t step) const {
    return clipped_run((step * kBlockThreads + at.thread) * kRunElements, size);
  }
};

/// Rows that are a flat buffer each. Places are in the row.
struct RowPartMap {
  static constexpr int kSteps = FlatMap::kSteps;

  std::int64_t rows;
  std::int64_t size;

  LORAPP_HD std::int64_t parts() const { return FlatMap{size}.grid(); }
  LORAPP_HD std::int64_t grid() const { return rows * parts(); }
  LORAPP_HD std::int64_t row(Place at) const { return at.block / parts(); }
  LORAPP_HD Run run(Place at, int step) const {
    return FlatMap{size}.run({at.block % parts(), at.thread}, step);
  }
};

/// Sums over rows, column by column, in two stages whose order depends on the shape alone. A block
/// of threads takes a part of the rows and a tile of columns: a lane a run of columns, its warps
/// rows in turn. What the warps have is added up for each column, then the parts are.
struct ColumnSumMap {
  static constexpr int kTile = kWarpLanes * kRunElements;  // columns, one a thread afterwards
  static constexpr std::int64_t kMostParts = 128;
  static constexpr std::int64_t kLeastRows = 64;  // of a part
  static_assert(kTile == kBlockThreads);

  std::int64_t rows;
  std::int64_t size;

  LORAPP_HD std::int64_t part_rows() const {
    const std::int64_t share = ceil_div(rows, kMostParts);
    return share < kLeastRows ? kLeastRows : share;
  }
  LORAPP_HD std::int64_t parts() const { return ceil_div(rows, part_rows()); }
  LORAPP_HD std::int64_t tiles() const { return ceil_div(size, kTile); }
  LORAPP_HD std::int64_t grid() const { return parts() * tiles(); }
  LORAPP_HD std::int64_t part(Place at) const { return at.block / tiles(); }
  LORAPP_HD int warp(Place at) const { return at.thread / kWarpLanes; }
  /// The columns that a thread reads; its rows begin here, kBlockWarps apart.
  LORAPP_HD Run run(Place at) const {
    return clipped_run(at.block % tiles() * kTile + run_in_tile(at), size);
  }
  LORAPP_HD int run_in_tile(Place at) const { return at.thread % kWarpLanes * kRunElements; }
  LORAPP_HD std::int64_t first_row(Place at) const { return part(at) * part_rows() + warp(at); }
  LORAPP_HD std::int64_t end_row(Place at) const {
    const std::int64_t end = (part(at) + 1) * part_rows();
    return end < rows ? end : rows;
  }
  /// The column that a thread adds up; may lie behind the last.
  LORAPP_HD std::int64_t column(Place at) const { return at.block % tiles() * kTile + at.thread; }
  /// Floats that lie between the stages: [parts, size].
  LORAPP_HD std::int64_t scratch() const { return parts() * size; }
};

/// Products of rows of x with the rows of A: a block of threads for each pair.
struct LowRankMap {
  std::int64_t tokens;
  std::int64_t rank;
  std::int64_t columns;

  LORAPP_HD std::int64_t grid() const { return tokens * rank; }
  LORAPP_HD std::int64_t token(Place at) const { return at.block / rank; }
  LORAPP_HD std::int64_t rank_row(Place at) const { return at.block % rank; }
  LORAPP_HD RowMap columns_of_row() const { return {tokens * rank, columns}; }
};

/// Heads of tokens whose two halves are turned against each other: a thread takes a run of the
/// first half and the same of the second. All of it is counted in 32 bits, which divide fast.
struct RotateMap {
  std::uint32_t tokens;
  std::uint32_t heads;
  std::uint32_t half;

  struct Part {
    std::uint32_t token;
    std::uint32_t head;
    Run run;  // within the half; none behind the last token
  };

  LORAPP_HD std::uint32_t runs() const { return (half + kRunElements - 1) / kRunElements; }
  LORAPP_HD std::int64_t parts() const { return std::int64_t{tokens} * heads * runs(); }
  LORAPP_HD std::int64_t grid() const { return ceil_div(parts(), kBlockThreads); }
  LORAPP_HD Part part(Place at) const {
    const std::int64_t index = at.block * kBlockThreads + at.thread;
    if (index >= parts()) return {0, 0, {0, 0}};
    const auto narrow = static_cast<std::uint32_t>(index);
    const std::uint32_t head = narrow / runs();
    return {head / heads, head % heads, clipped_run(narrow % runs() * kRunElements, half)};
  }
};

/// Products of a few rows of x (tokens) with 4-bit weights, by mma.m16n8k16: a block of threads
/// takes 16 rows of W, its warps take chunks of 64 columns in turn. In a chunk lane 4g + t has the
/// columns 16t to 16t + 15 of the rows g and g + 8, four in each of four steps of the summed
/// dimension. `columns` is a multiple of 64, and so is the weights' blocksize.
struct SmallProductMap {
  static constexpr int kRows = 16;         // of W, of a block of threads
  static constexpr int kChunk = 64;        // columns
  static constexpr int kLaneColumns = 16;  // of a chunk
  static constexpr int kSteps = 4;         // of a chunk, mma.m16n8k16 each
  static constexpr int kTileTokens = 8;    // of an mma
  static constexpr int kMostTokens = 64;
  // What is counted in 32 bits: bytes of codes, and elements of x.
  static constexpr std::int64_t kMostBytes = 0xffffffff;
  static constexpr std::int64_t kMostColumns = 0x7fffffff / kMostTokens;

  std::int64_t rows;
  std::int64_t columns;

  /// Whether the kernel can take so many tokens, with weights in blocks of this size.
  LORAPP_HD bool fits(std::int64_t tokens, std::int64_t blocksize) const {
    return tokens >= 0 && tokens <= kMostTokens && columns % kChunk == 0 &&
           is_blocksize(blocksize, kChunk) && columns % blocksize == 0 &&
           rows * columns / 2 <= kMostBytes && columns <= kMostColumns;
  }
  LORAPP_HD std::int64_t grid() const { return ceil_div(rows, kRows); }
  LORAPP_HD std::int64_t chunks() const { return columns / kChunk; }
  /// The chunks of a thread's warp, counted by `round`.
  LORAPP_HD int chunk(Place at, int round) const {
    return round * kBlockWarps + at.thread / kWarpLanes;
  }
  /// How many of them are read ahead, with a number of tiles of tokens: enough for the memory of a
  /// GPU to be busy with few blocks of threads, as far as registers allow.
  LORAPP_HD static constexpr int ahead(int tiles) { return tiles <= 2 ? 4 : 1; }
  LORAPP_HD int group(Place at) const { return at.thread % kWarpLanes / 4; }
  LORAPP_HD int quarter(Place at) const { return at.thread % 4; }
  /// `upper` 0 or 1: the lane's row g or g + 8; may lie behind the last.
  LORAPP_HD std::int64_t row(Place at, int upper) const {
    return at.block * kRows + upper * kRows / 2 + group(at);
  }
  /// The lane's first column in a chunk.
  LORAPP_HD int column(Place at, int chunk) const {
    return chunk * kChunk + quarter(at) * kLaneColumns;
  }
  /// Where an element of a warp's sums is: element i of 4 of a lane, as mma leaves them.
  LORAPP_HD int sum_row(Place at, int i) const { return group(at) + i / 2 * kRows / 2; }
  LORAPP_HD int sum_token(Place at, int tile, int i) const {
    return tile * kTileTokens + quarter(at) * 2 + i % 2;
  }
  /// The outputs of a block of threads, [tokens][16], one a thread and step.
  LORAPP_HD int output(Place at, int step) const { return step * kBlockThreads + at.thread; }
};

/// Several grids one behind the other in one launch.
struct JoinedGrids {
  static constexpr int kMost = 3;

  int count = 0;
  std::int64_t first[kMost] = {};  // blocks of threads
  std::int64_t grid = 0;           // of all

  LORAPP_HD void add(std::int64_t blocks) {
    first[count++] = grid;
    grid += blocks;
  }
  /// The grid that a block belongs to.
  LORAPP_HD int part(Place at) const {
    int i = 0;
    while (i + 1 < count && at.block >= first[i + 1]) ++i;
    return i;
  }
  /// Its place there.
  LORAPP_HD Place within(Place at, int part) const { return {at.block - first[part], at.thread}; }
};

/// A flat buffer that a fixed number of blocks sums, so that the order does not depend on the GPU.
struct SumMap {
  static constexpr std::int64_t kBlocks = 512;

  std::int64_t n;

  LORAPP_HD std::int64_t grid() const { return kBlocks; }
  LORAPP_HD std::int64_t steps() const {
    return ceil_div(n, std::int64_t{kRunElements} * kBlockThreads * kBlocks);
  }
  LORAPP_HD Run run(Place at, std::int64_t step) const {
    return clipped_run(((step * kBlocks + at.block) * kBlockThreads + at.thread) * kRunElements, n);
  }
};

/// One element a thread.
struct ElementMap {
  std::int64_t n;

  LORAPP_HD std::int64_t grid() const { return ceil_div(n, kBlockThreads); }
  LORAPP_HD std::int64_t element(Place at) const { return at.block * kBlockThreads + at.thread; }
};

}  // namespace lorapp::kernels
