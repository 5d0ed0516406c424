// What the emulation of CUDA promises: fibers, barriers, shuffles, and errors where CUDA has none.
#include "cuda/emulation/cuda_runtime.h"
#include "cuda/emulation_order.hpp"

#include <doctest/doctest.h>

#include <stdexcept>
#include <vector>

TEST_SUITE("emulation of CUDA") {
  TEST_CASE(
      "every thread of every block runs, and sees behind a barrier what all wrote before it") {
    lorapp::test::for_each_order([] {
      std::vector<int> cells(64), sums(3 * 64);
      emulation::run(
          dim3(3), dim3(64),
          [&] {
            cells[threadIdx.x] = static_cast<int>(threadIdx.x);
            __syncthreads();
            int sum = 0;
            for (const int each : cells) sum += each;
            sums[blockIdx.x * 64 + threadIdx.x] = sum;
            __syncthreads();
            cells[threadIdx.x] = -1;
            __syncthreads();
          },
          nullptr);
      for (const int sum : sums) CHECK(sum == 63 * 64 / 2);
    });
  }

  TEST_CASE("a missing barrier is seen in some order of the threads") {
    int different = 0;
    lorapp::test::for_each_order([&] {
      std::vector<int> cells(64, -1), seen(64);
      emulation::run(
          dim3(1), dim3(64),
          [&] {
            cells[threadIdx.x] = static_cast<int>(threadIdx.x);
            seen[threadIdx.x] = cells[63 - threadIdx.x];
          },
          nullptr);
      for (const int each : seen) different += each == -1;
    });
    CHECK(different > 0);
  }

  TEST_CASE("a shuffle gives the value of the lane that is asked for, before that lane goes on") {
    lorapp::test::for_each_order([] {
      std::vector<float> found(64);
      emulation::run(
          dim3(1), dim3(64),
          [&] {
            float x = static_cast<float>(threadIdx.x);
            const float neighbour = __shfl_xor_sync(0xffffffffu, x, 1);
            x = -1;
            found[threadIdx.x] = neighbour;
          },
          nullptr);
      for (unsigned i = 0; i < 64; ++i) CHECK(found[i] == static_cast<float>(i ^ 1u));
    });
  }

  TEST_CASE(
      "threads that wait for one that has ended are an error, and so is what a thread throws") {
    CHECK_THROWS_WITH_AS(emulation::run(
                             dim3(2), dim3(64),
                             [] {
                               if (threadIdx.x != 40) __syncthreads();
                             },
                             nullptr),
                         "block 0: 1 of 64 threads have ended, and the others wait for each other",
                         std::logic_error);
    CHECK_THROWS_AS(emulation::run(
                        dim3(1), dim3(32),
                        [] {
                          if (threadIdx.x < 8) __syncwarp();
                        },
                        nullptr),
                    std::logic_error);
    CHECK_THROWS_AS(emulation::run(
                        dim3(1), dim3(32),
                        [] {
                          if (threadIdx.x == 3) throw std::runtime_error("three");
                        },
                        nullptr),
                    std::runtime_error);
    CHECK_THROWS_AS(emulation::run(
                        dim3(1), dim3(33), [] {}, nullptr),
                    std::logic_error);
  }
}
