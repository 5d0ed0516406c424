// The compression functions of FIPS 180-4, sections 6.1.2 and 6.2.2; SHA-256 also with the x86
// instructions for it, where the processor has them.
#include "io/sha.hpp"

#include <lorapp/error.hpp>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace lorapp::detail {

namespace {

// The first 32 bits of the fractional parts of the cube roots of the first 64 primes.
constexpr std::array<std::uint32_t, 64> kRound = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

std::uint32_t word_at(const unsigned char* bytes) {
  return static_cast<std::uint32_t>(bytes[0]) << 24 | static_cast<std::uint32_t>(bytes[1]) << 16 |
         static_cast<std::uint32_t>(bytes[2]) << 8 | static_cast<std::uint32_t>(bytes[3]);
}

std::uint32_t choose(std::uint32_t x, std::uint32_t y, std::uint32_t z) {
  return (x & y) ^ (~x & z);
}

std::uint32_t majority(std::uint32_t x, std::uint32_t y, std::uint32_t z) {
  return (x & y) ^ (x & z) ^ (y & z);
}

using State = std::array<std::uint32_t, 8>;
constexpr std::size_t kBlock = 64;

constexpr State kInitial1 = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
constexpr State kInitial256 = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                               0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

void compress1(State& state, const unsigned char* block) {
  std::array<std::uint32_t, 80> w{};
  for (std::size_t t = 0; t < 16; ++t) w[t] = word_at(block + 4 * t);
  for (std::size_t t = 16; t < 80; ++t) {
    w[t] = std::rotl(w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16], 1);
  }
  std::uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
  const auto step = [&](std::uint32_t f, std::uint32_t k, std::uint32_t word) {
    const std::uint32_t next = std::rotl(a, 5) + f + e + k + word;
    e = d;
    d = c;
    c = std::rotl(b, 30);
    b = a;
    a = next;
  };
  for (std::size_t t = 0; t < 20; ++t) step(choose(b, c, d), 0x5a827999, w[t]);
  for (std::size_t t = 20; t < 40; ++t) step(b ^ c ^ d, 0x6ed9eba1, w[t]);
  for (std::size_t t = 40; t < 60; ++t) step(majority(b, c, d), 0x8f1bbcdc, w[t]);
  for (std::size_t t = 60; t < 80; ++t) step(b ^ c ^ d, 0xca62c1d6, w[t]);
  const State added = {a, b, c, d, e};
  for (std::size_t i = 0; i < added.size(); ++i) state[i] += added[i];
}

void compress256(State& state, const unsigned char* block) {
  std::array<std::uint32_t, 64> w{};
  for (std::size_t t = 0; t < 16; ++t) w[t] = word_at(block + 4 * t);
  for (std::size_t t = 16; t < 64; ++t) {
    const std::uint32_t x = w[t - 15];
    const std::uint32_t y = w[t - 2];
    w[t] = w[t - 16] + (std::rotr(x, 7) ^ std::rotr(x, 18) ^ x >> 3) + w[t - 7] +
           (std::rotr(y, 17) ^ std::rotr(y, 19) ^ y >> 10);
  }
  auto [a, b, c, d, e, f, g, h] = state;
  for (std::size_t t = 0; t < 64; ++t) {
    const std::uint32_t first = h + (std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25)) +
                                choose(e, f, g) + kRound[t] + w[t];
    const std::uint32_t second =
        (std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22)) + majority(a, b, c);
    h = g;
    g = f;
    f = e;
    e = d + first;
    d = c;
    c = b;
    b = a;
    a = first + second;
  }
  const State added = {a, b, c, d, e, f, g, h};
  for (std::size_t i = 0; i < added.size(); ++i) state[i] += added[i];
}

#if defined(__x86_64__)
// Four rounds an iteration; the message schedule runs four words ahead.
__attribute__((target("sha,sse4.1"))) void compress256_sha(State& state,
                                                           const unsigned char* data,
                                                           std::size_t blocks) {
  const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
  // The instructions want {a, b, e, f} and {c, d, g, h}.
  const auto pack = [&](int i, int j) __attribute__((target("sha,sse4.1"))) {
    return _mm_set_epi32(static_cast<int>(state[i]), static_cast<int>(state[i + 1]),
                         static_cast<int>(state[j]), static_cast<int>(state[j + 1]));
  };
  __m128i abef = pack(0, 4);
  __m128i cdgh = pack(2, 6);
  for (; blocks > 0; --blocks, data += kBlock) {
    const __m128i abef_before = abef;
    const __m128i cdgh_before = cdgh;
    __m128i w[4];
    for (int i = 0; i < 4; ++i) {
      const auto* words = reinterpret_cast<const __m128i*>(data + 16 * i);
      w[i] = _mm_shuffle_epi8(_mm_loadu_si128(words), big_endian);
    }
    for (int i = 0; i < 16; ++i) {
      const auto* constants = reinterpret_cast<const __m128i*>(kRound.data() + 4 * i);
      const __m128i sum = _mm_add_epi32(w[i % 4], _mm_loadu_si128(constants));
      cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
      abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0e));
      if (i >= 12) continue;
      __m128i next = _mm_sha256msg1_epu32(w[i % 4], w[(i + 1) % 4]);
      next = _mm_add_epi32(next, _mm_alignr_epi8(w[(i + 3) % 4], w[(i + 2) % 4], 4));
      w[i % 4] = _mm_sha256msg2_epu32(next, w[(i + 3) % 4]);
    }
    abef = _mm_add_epi32(abef, abef_before);
    cdgh = _mm_add_epi32(cdgh, cdgh_before);
  }
  alignas(16) std::uint32_t out[8];
  _mm_store_si128(reinterpret_cast<__m128i*>(out), abef);
  _mm_store_si128(reinterpret_cast<__m128i*>(out + 4), cdgh);
  state = {out[3], out[2], out[7], out[6], out[1], out[0], out[5], out[4]};
}

bool has_sha() {
  // Leaf 7, EBX bit 29; __builtin_cpu_supports does not know the name.
  unsigned a = 0, b = 0, c = 0, d = 0;
  __asm__("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(7), "c"(0));
  return (b >> 29 & 1) != 0 && __builtin_cpu_supports("sse4.1");
}
#endif

}  // namespace

Sha::Sha(Kind kind, bool portable)
    : kind_(kind), portable_(portable), state_(kind == Kind::sha1 ? kInitial1 : kInitial256) {}

void Sha::compress(const unsigned char* data, std::size_t blocks) {
#if defined(__x86_64__)
  static const bool fast = has_sha();
  if (kind_ == Kind::sha256 && fast && !portable_) return compress256_sha(state_, data, blocks);
#endif
  for (; blocks > 0; --blocks, data += kBlock) {
    kind_ == Kind::sha1 ? compress1(state_, data) : compress256(state_, data);
  }
}

void Sha::update(const void* data, std::size_t size) {
  const auto* next = static_cast<const unsigned char*>(data);
  length_ += size;
  if (filled_ > 0) {
    const std::size_t taken = std::min(size, kBlock - filled_);
    std::memcpy(block_.data() + filled_, next, taken);
    filled_ += taken;
    next += taken;
    size -= taken;
    if (filled_ < kBlock) return;
    compress(block_.data(), 1);
    filled_ = 0;
  }
  compress(next, size / kBlock);
  filled_ = size % kBlock;
  if (filled_ > 0) std::memcpy(block_.data(), next + size - filled_, filled_);
}

std::string Sha::hex_digest() {
  // A one bit, zeros up to the last 8 bytes of a block, and the length in bits.
  const std::uint64_t bits = length_ * 8;
  std::array<unsigned char, 72> padding{0x80};
  const std::size_t zeros = (filled_ < 56 ? 56 : 120) - filled_;
  for (std::size_t i = 0; i < 8; ++i) {
    padding[zeros + i] = static_cast<unsigned char>(bits >> (56 - 8 * i));
  }
  update(padding.data(), zeros + 8);
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  for (std::size_t i = 0; i < (kind_ == Kind::sha1 ? 5U : 8U); ++i) {
    for (int shift = 28; shift >= 0; shift -= 4) text += kDigits[state_[i] >> shift & 15];
  }
  return text;
}

std::string sha256_of_file(const std::filesystem::path& path, std::string_view op) {
  const auto reason = [] { return std::generic_category().message(errno); };
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  LORAPP_CHECK(fd >= 0, op, path.string(), ": cannot be read: ", reason());
  Sha digest(Sha::Kind::sha256);
  std::vector<unsigned char> buffer(std::size_t{1} << 20);
  ssize_t got = 0;
  do {
    got = ::read(fd, buffer.data(), buffer.size());
    if (got > 0) digest.update(buffer.data(), static_cast<std::size_t>(got));
  } while (got > 0 || (got < 0 && errno == EINTR));
  const std::string error = got < 0 ? reason() : std::string();
  ::close(fd);
  LORAPP_CHECK(error.empty(), op, path.string(), ": cannot be read: ", error);
  return digest.hex_digest();
}

}  // namespace lorapp::detail
