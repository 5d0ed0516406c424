// SHA-1 and SHA-256 of bytes that arrive in pieces (FIPS 180-4), for the checksums of the hub's
// files. Of our own, because the TLS library behind libcurl is one of several, and often comes
// without its headers.
#pragma once

#include <lorapp/export.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace lorapp::detail {

class LORAPP_API Sha {
 public:
  enum class Kind { sha1, sha256 };

  /// `portable`: without the processor's own instructions.
  explicit Sha(Kind kind, bool portable = false);

  void update(const void* data, std::size_t size);
  void update(std::string_view text) { update(text.data(), text.size()); }

  /// The digest in lower-case hexadecimal, of 40 or 64 digits. Nothing may be added after it.
  std::string hex_digest();

 private:
  void compress(const unsigned char* data, std::size_t blocks);

  Kind kind_;
  bool portable_;
  std::array<std::uint32_t, 8> state_{};  // SHA-1 uses five
  std::array<unsigned char, 64> block_{};
  std::size_t filled_ = 0;    // bytes of block_
  std::uint64_t length_ = 0;  // bytes in all
};

/// The SHA-256 of a whole file, hexadecimal; Error(op) where it cannot be read.
LORAPP_API std::string sha256_of_file(const std::filesystem::path& path, std::string_view op);

}  // namespace lorapp::detail
