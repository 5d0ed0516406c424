// SHA-1 and SHA-256 against the examples of FIPS 180-4, and against themselves in pieces.
#include "io/sha.hpp"

#include "support/error_of.hpp"
#include "support/temporary_folder.hpp"

#include <doctest/doctest.h>

#include <string>
#include <string_view>

using lorapp::detail::Sha;
using namespace lorapp::test;

namespace {

std::string digest(Sha::Kind kind, std::string_view text, std::size_t piece) {
  std::string digests[2];
  for (const bool portable : {false, true}) {
    Sha sha(kind, portable);
    std::string_view rest = text;
    for (; rest.size() > piece; rest.remove_prefix(piece)) sha.update(rest.substr(0, piece));
    sha.update(rest);
    digests[portable ? 1 : 0] = sha.hex_digest();
  }
  CHECK(digests[0] == digests[1]);
  return digests[0];
}

}  // namespace

TEST_SUITE("io") {
  TEST_CASE("sha: the examples of the standard have their digests") {
    const std::string million(1000000, 'a');
    const std::string_view two_blocks = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    for (const std::size_t piece : {1UL, 7UL, 64UL, 10000UL}) {
      CAPTURE(piece);
      using enum Sha::Kind;
      CHECK(digest(sha1, "", piece) == "da39a3ee5e6b4b0d3255bfef95601890afd80709");
      CHECK(digest(sha1, "abc", piece) == "a9993e364706816aba3e25717850c26c9cd0d89d");
      CHECK(digest(sha1, two_blocks, piece) == "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
      CHECK(digest(sha1, million, piece) == "34aa973cd4c4daa4f61eeb2bdbad27316534016f");
      CHECK(digest(sha256, "", piece) ==
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
      CHECK(digest(sha256, "abc", piece) ==
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
      CHECK(digest(sha256, two_blocks, piece) ==
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
      CHECK(digest(sha256, million, piece) ==
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    }
  }

  TEST_CASE("sha: every length around a block gives the same digest in one piece and in many") {
    for (std::size_t size = 0; size < 200; ++size) {
      const std::string text(size, static_cast<char>('a' + size % 26));
      for (const auto kind : {Sha::Kind::sha1, Sha::Kind::sha256}) {
        CHECK(digest(kind, text, 1000) == digest(kind, text, 3));
      }
    }
  }

  TEST_CASE("sha: a file has the digest of its bytes, and one that cannot be read is named") {
    const TemporaryFolder folder;
    const std::string text(3'000'001, 'z');
    folder.write("f", text);
    CHECK(lorapp::detail::sha256_of_file(folder / "f", "test") ==
          digest(Sha::Kind::sha256, text, text.size()));
    CHECK(contains(error_of([&] { lorapp::detail::sha256_of_file(folder / "g", "test"); }), "/g"));
    CHECK(contains(error_of([&] { lorapp::detail::sha256_of_file(folder.path(), "test"); }),
                   "cannot be read"));
  }
}
