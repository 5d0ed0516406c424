// The two permutations that make a data order equal to Python's: numpy's (data sets) and torch's
// (epochs). Convention: a seed stands for the same order as in numpy.random.default_rng(seed) and
// torch.Generator().manual_seed(seed).
#pragma once

#include <lorapp/error.hpp>
#include <lorapp/export.hpp>

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

namespace lorapp {

namespace detail {

__extension__ using uint128 = unsigned __int128;

/// numpy.random.SeedSequence(seed).generate_state(4, uint64): the words that seed a generator.
///
/// M. E. O'Neill's seed_seq_fe with a pool of four 32-bit words, as numpy fixes it.
inline std::array<uint64_t, 4> numpy_seed_words(uint64_t seed) {
  constexpr uint32_t kInitA = 0x43b0d7e5, kMultA = 0x931e8875;
  constexpr uint32_t kInitB = 0x8b51f9dd, kMultB = 0x58f38ded;
  constexpr uint32_t kMixLeft = 0xca01f9dd, kMixRight = 0x4973f715;

  uint32_t hash_const = kInitA;
  const auto hash = [&hash_const](uint32_t value) {
    value ^= hash_const;
    hash_const *= kMultA;
    value *= hash_const;
    return value ^ (value >> 16);
  };
  const auto mix = [](uint32_t x, uint32_t y) {
    const uint32_t result = kMixLeft * x - kMixRight * y;
    return result ^ (result >> 16);
  };

  std::array<uint32_t, 4> pool = {hash(static_cast<uint32_t>(seed)), 0, 0, 0};
  pool[1] = hash(static_cast<uint32_t>(seed >> 32));
  pool[2] = hash(0);
  pool[3] = hash(0);
  for (std::size_t from = 0; from < 4; ++from) {
    for (std::size_t to = 0; to < 4; ++to) {
      if (from != to) pool[to] = mix(pool[to], hash(pool[from]));
    }
  }

  std::array<uint32_t, 8> state{};
  hash_const = kInitB;
  for (std::size_t i = 0; i < state.size(); ++i) {
    uint32_t value = pool[i % 4] ^ hash_const;
    hash_const *= kMultB;
    value *= hash_const;
    state[i] = value ^ (value >> 16);
  }
  std::array<uint64_t, 4> words{};
  for (std::size_t i = 0; i < words.size(); ++i) {
    words[i] = state[2 * i] | (static_cast<uint64_t>(state[2 * i + 1]) << 32);
  }
  return words;
}

/// PCG64 (XSL-RR 128/64; M. E. O'Neill, "PCG", 2014), seeded as numpy.random.default_rng(seed).
class Pcg64 {
 public:
  explicit Pcg64(uint64_t seed) {
    const std::array<uint64_t, 4> words = numpy_seed_words(seed);
    const uint128 initial = join(words[0], words[1]);
    increment_ = (join(words[2], words[3]) << 1) | 1;
    step();
    state_ += initial;
    step();
  }

  uint64_t next64() {
    step();
    const auto high = static_cast<uint64_t>(state_ >> 64);
    const auto low = static_cast<uint64_t>(state_);
    return std::rotr(high ^ low, static_cast<int>(high >> 58));
  }

  /// The low half of a 64-bit number first, then its high half.
  uint32_t next32() {
    if (has_half_) {
      has_half_ = false;
      return half_;
    }
    const uint64_t both = next64();
    has_half_ = true;
    half_ = static_cast<uint32_t>(both >> 32);
    return static_cast<uint32_t>(both);
  }

  /// Uniform in [0, last]: numbers cut to the bits of `last` until one fits, 32-bit ones where
  /// `last` fits into them (numpy's random_interval, which its shuffles use).
  uint64_t interval(uint64_t last) {
    if (last == 0) return 0;
    const uint64_t mask = ~uint64_t{0} >> std::countl_zero(last);
    uint64_t value = 0;
    do {
      value = (last <= 0xffffffffu ? next32() : next64()) & mask;
    } while (value > last);
    return value;
  }

 private:
  static constexpr uint128 join(uint64_t high, uint64_t low) {
    return (static_cast<uint128>(high) << 64) | low;
  }

  void step() { state_ = state_ * join(2549297995355413924u, 4865540595714422341u) + increment_; }

  uint128 state_ = 0;
  uint128 increment_ = 0;
  uint32_t half_ = 0;
  bool has_half_ = false;
};

}  // namespace detail

/// numpy.random.default_rng(seed).permutation(n): the order of datasets' shuffle(seed) and
/// train_test_split(seed).
inline std::vector<int64_t> numpy_permutation(int64_t n, uint64_t seed) {
  LORAPP_CHECK(n >= 0, "numpy_permutation", "n is ", n, ", expected 0 or more");
  std::vector<int64_t> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), int64_t{0});
  detail::Pcg64 random(seed);
  for (std::size_t i = order.size(); i-- > 1;) std::swap(order[i], order[random.interval(i)]);
  return order;
}

/// torch.randperm(n, generator=torch.Generator().manual_seed(seed)): the order of an epoch, where
/// seed is the training seed plus the epoch. Uses a generator of its own; the global one is not
/// touched.
LORAPP_API std::vector<int64_t> torch_randperm(int64_t n, uint64_t seed);

}  // namespace lorapp
