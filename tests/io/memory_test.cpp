// The peak of resident memory.
#include <lorapp/io/memory.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <vector>

TEST_SUITE("memory") {
  TEST_CASE("the peak covers an allocation that was touched, and does not fall when it is freed") {
    const auto before = lorapp::peak_memory_bytes();
    REQUIRE(before > 0);
    constexpr std::size_t kBytes = std::size_t{256} << 20;
    std::size_t sum = 0;
    {
      std::vector<unsigned char> block(kBytes, 1);
      for (std::size_t i = 0; i < kBytes; i += 4096) sum += block[i];
    }
    CHECK(sum == kBytes / 4096);
    const auto after = lorapp::peak_memory_bytes();
    CHECK(after >= before);
    CHECK(after >= kBytes);
  }
}
