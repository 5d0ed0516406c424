// The index maps of CUDA kernels, walked on the host: blocks × threads × steps.
#include "kernels/tile_map.hpp"

#include <doctest/doctest.h>

#include <vector>

using namespace lorapp::kernels;

namespace {

// Calls f(place) for every thread of a grid.
template <class F>
void for_each_place(std::int64_t grid, F f) {
  for (std::int64_t block = 0; block < grid; ++block) {
    for (int thread = 0; thread < kBlockThreads; ++thread) f(Place{block, thread});
  }
}

// How often each of n elements was in a run.
class Visits {
 public:
  explicit Visits(std::int64_t n) : visits_(static_cast<std::size_t>(n)) {}
  void add(Run run) {
    for (std::int64_t i = run.first; i < run.first + run.count; ++i) {
      if (i < 0 || i >= static_cast<std::int64_t>(visits_.size())) {
        ++outside_;
      } else {
        ++visits_[static_cast<std::size_t>(i)];
      }
    }
  }
  bool once_each() const {
    if (outside_ != 0) return false;
    for (const int count : visits_) {
      if (count != 1) return false;
    }
    return true;
  }

 private:
  std::vector<int> visits_;
  std::int64_t outside_ = 0;
};

constexpr std::int64_t kSizes[] = {0,  1,   7,    8,    9,    31,   32,   63,    64,
                                   65, 255, 1000, 1023, 1024, 2048, 4097, 20011, 65536};

}  // namespace

TEST_SUITE("tile maps") {
  TEST_CASE("quantizing reads each weight in one run and writes each scale once") {
    for (const std::int64_t blocksize : {32, 64, 128, 256, 512, 1024, 2048, 4096}) {
      for (const std::int64_t n : kSizes) {
        CAPTURE(blocksize);
        CAPTURE(n);
        const QuantizeMap map{n, blocksize};
        Visits elements(n), scales(ceil_div(n, blocksize));
        bool within_block = true, same_warp = true, even = true;
        for_each_place(map.grid(), [&](Place at) {
          for (int step = 0; step < map.steps(); ++step) {
            const Run run = map.run(at, step);
            elements.add(run);
            if (run.count == 0) continue;
            even = even && run.first % 2 == 0;  // no byte of codes is two threads'
            within_block = within_block && run.first / blocksize == map.weight_block(at) &&
                           (run.first + run.count - 1) / blocksize == map.weight_block(at);
          }
          if (map.writes_absmax(at)) scales.add({map.weight_block(at), 1});
          const int first_lane = at.thread / map.lanes() * map.lanes();
          same_warp =
              same_warp && first_lane / kWarpLanes == (first_lane + map.lanes() - 1) / kWarpLanes;
        });
        CHECK(elements.once_each());
        CHECK(scales.once_each());
        CHECK(within_block);
        CHECK(same_warp);
        CHECK(even);
      }
    }
  }

  TEST_CASE("a warp has a block of moments, in one step") {
    const QuantizeMap map = moments_map(1000);
    CHECK(map.blocksize == 256);
    CHECK(map.lanes() == kWarpLanes);
    CHECK(map.steps() == 1);
    CHECK(map.grid() == 1);
  }

  TEST_CASE(
      "dequantizing reads each byte of codes once and writes each weight once, of codes that its "
      "warp has read") {
    for (const std::int64_t n : kSizes) {
      CAPTURE(n);
      const DequantizeMap map{n};
      Visits bytes(map.code_bytes()), weights(n);
      bool of_own_tile = true;
      for_each_place(map.grid(), [&](Place at) {
        for (int tile = 0; tile < DequantizeMap::kTiles; ++tile) {
          const std::int64_t begin = map.tile_begin(at, tile);
          if (begin >= n) break;
          const std::int64_t byte = map.code_byte(at, begin);
          for (int part = 0; part < DequantizeMap::kLaneBytes; part += kRunElements) {
            bytes.add(clipped_run(byte + part, map.code_bytes()));
          }
          for (int step = 0; step < DequantizeMap::kSteps; ++step) {
            const Run run = map.run(at, begin, step);
            weights.add(run);
            const int word = map.word(at, step);
            of_own_tile = of_own_tile && word >= 0 &&
                          word < kWarpLanes * DequantizeMap::kLaneBytes / 4 &&
                          (run.count == 0 || run.first == begin + word * kRunElements);
          }
        }
      });
      CHECK(bytes.once_each());
      CHECK(weights.once_each());
      CHECK(of_own_tile);
    }
  }

  TEST_CASE(
      "a small product reads each code once, keeps each sum once, and gives each output once") {
    for (const std::int64_t rows : {1, 15, 16, 17, 40}) {
      for (const std::int64_t columns : {64, 128, 512, 576}) {
        const SmallProductMap map{rows, columns};
        Visits codes(rows * columns);
        for_each_place(map.grid(), [&](Place at) {
          for (int round = 0; map.chunk(at, round) < map.chunks(); ++round) {
            const int chunk = map.chunk(at, round);
            for (int upper = 0; upper < 2; ++upper) {
              if (map.row(at, upper) >= rows) continue;
              const std::int64_t first = map.row(at, upper) * columns + map.column(at, chunk);
              codes.add({first, SmallProductMap::kLaneColumns});
            }
          }
        });
        CHECK(codes.once_each());
      }
    }
    for (const int tiles : {1, 2, 4, 8}) {
      const int outputs = tiles * SmallProductMap::kTileTokens * SmallProductMap::kRows;
      const SmallProductMap map{16, 64};
      Visits sums(outputs), given(outputs);
      for (int lane = 0; lane < kWarpLanes; ++lane) {
        for (int tile = 0; tile < tiles; ++tile) {
          for (int i = 0; i < 4; ++i) {
            const Place at{0, lane};
            sums.add({map.sum_token(at, tile, i) * SmallProductMap::kRows + map.sum_row(at, i), 1});
          }
        }
      }
      for_each_place(1, [&](Place at) {
        for (int step = 0; map.output(at, step) < outputs; ++step)
          given.add({map.output(at, step), 1});
      });
      CHECK(sums.once_each());
      CHECK(given.once_each());
    }
  }

  TEST_CASE("a low-rank term's rows have each pair once") {
    for (const std::int64_t rank : {1, 3, 16}) {
      const LowRankMap map{5, rank, 100};
      Visits pairs(5 * rank);
      for (std::int64_t block = 0; block < map.grid(); ++block) {
        pairs.add({map.token({block, 0}) * rank + map.rank_row({block, 0}), 1});
      }
      CHECK(pairs.once_each());
    }
  }

  TEST_CASE("rotating has each element of the first halves once") {
    for (const std::uint32_t half : {1u, 7u, 8u, 12u, 64u}) {
      for (const std::uint32_t heads : {1u, 3u}) {
        for (const std::uint32_t tokens : {0u, 1u, 5u, 100u}) {
          const RotateMap map{tokens, heads, half};
          Visits halves(std::int64_t{tokens} * heads * half);
          for_each_place(map.grid(), [&](Place at) {
            const RotateMap::Part part = map.part(at);
            halves.add({(std::int64_t{part.token} * heads + part.head) * half + part.run.first,
                        part.run.count});
          });
          CHECK(halves.once_each());
        }
      }
    }
  }

  TEST_CASE(
      "column sums read each element once, and add up what each warp and each part has once") {
    for (const std::int64_t rows : {0, 1, 7, 8, 64, 65, 1000, 128 * 64, 128 * 64 + 1}) {
      for (const std::int64_t size : {1, 8, 255, 256, 257, 600}) {
        if (rows * size > 1'000'000 && size != 257) continue;
        CAPTURE(rows);
        CAPTURE(size);
        const ColumnSumMap map{rows, size};
        CHECK(map.parts() <= ColumnSumMap::kMostParts);
        Visits elements(rows * size), sums(map.scratch());
        bool in_tile = true;
        for_each_place(map.grid(), [&](Place at) {
          const Run run = map.run(at);
          for (std::int64_t row = map.first_row(at); row < map.end_row(at); row += kBlockWarps) {
            elements.add({row * size + run.first, run.count});
          }
          if (map.column(at) < size) sums.add({map.part(at) * size + map.column(at), 1});
          // What a thread leaves for the columns of its run is where their threads look for it.
          const std::int64_t tile_begin = map.column({at.block, 0});
          in_tile = in_tile && (run.count == 0 || run.first == tile_begin + map.run_in_tile(at)) &&
                    map.run_in_tile(at) + kRunElements <= ColumnSumMap::kTile &&
                    map.warp(at) < kBlockWarps;
        });
        CHECK(elements.once_each());
        CHECK(sums.once_each());
        CHECK(in_tile);
      }
    }
  }

  TEST_CASE("grids in one launch have each of their blocks once") {
    for (const std::vector<std::int64_t>& sizes :
         {std::vector<std::int64_t>{5}, {3, 4}, {1, 0, 2}, {7, 1, 1}}) {
      JoinedGrids grids;
      std::vector<Visits> visits;
      for (const std::int64_t size : sizes) {
        grids.add(size);
        visits.emplace_back(size);
      }
      bool same_thread = true;
      for (std::int64_t block = 0; block < grids.grid; ++block) {
        const Place at{block, 17};
        const int part = grids.part(at);
        const Place within = grids.within(at, part);
        visits[static_cast<std::size_t>(part)].add({within.block, 1});
        same_thread = same_thread && within.thread == 17;
      }
      CHECK(same_thread);
      for (const Visits& each : visits) CHECK(each.once_each());
    }
  }

  TEST_CASE("flat, row, part, sum and element maps have each element once") {
    for (const std::int64_t n : kSizes) {
      CAPTURE(n);
      const FlatMap flat{n};
      Visits in_flat(n);
      for_each_place(flat.grid(), [&](Place at) {
        for (int step = 0; step < FlatMap::kSteps; ++step) in_flat.add(flat.run(at, step));
      });
      CHECK(in_flat.once_each());

      const SumMap sum{n};
      Visits in_sum(n);
      for_each_place(sum.grid(), [&](Place at) {
        for (std::int64_t step = 0; step < sum.steps(); ++step) in_sum.add(sum.run(at, step));
      });
      CHECK(in_sum.once_each());

      const ElementMap elements{n};
      Visits in_elements(n);
      for_each_place(elements.grid(), [&](Place at) {
        if (elements.element(at) < n) in_elements.add({elements.element(at), 1});
      });
      CHECK(in_elements.once_each());

      for (const std::int64_t rows : {1, 3}) {
        const RowMap map{rows, n};
        Visits in_rows(rows * n);
        for_each_place(map.grid(), [&](Place at) {
          for (std::int64_t step = 0; step < map.steps(); ++step) {
            const Run run = map.run(at, step);
            in_rows.add({map.row(at) * n + run.first, run.count});
          }
        });
        CHECK(in_rows.once_each());

        const RowPartMap parts{rows, n};
        Visits in_parts(rows * n);
        for_each_place(parts.grid(), [&](Place at) {
          for (int step = 0; step < RowPartMap::kSteps; ++step) {
            const Run run = parts.run(at, step);
            in_parts.add({parts.row(at) * n + run.first, run.count});
          }
        });
        CHECK(in_parts.once_each());
      }
    }
  }
}
