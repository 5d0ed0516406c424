// AlignedText: a text made from another one (by normalization, replacement, insertion), which knows
// for each of its bytes the bytes of the original that it stands for.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lorapp::detail {

class AlignedText {
 public:
  using Span = std::pair<std::size_t, std::size_t>;

  /// The original itself, or the part of it that begins at byte `origin`: nothing is copied. Texts
  /// made from it track their origins if it does.
  static AlignedText view(std::string_view text, std::size_t origin, bool track);

  /// An empty text to append to. Without `track`, origins cost nothing and are not to be asked for.
  explicit AlignedText(bool track) : track_(track), is_view_(false) {}

  std::string_view text() const { return is_view_ ? view_ : std::string_view(storage_); }
  bool track() const { return track_; }

  /// Appends bytes [begin, end) of another text, which keep their origins.
  void append_copy(const AlignedText& from, std::size_t begin, std::size_t end);

  /// Appends bytes that stand, all together, for one span of the original.
  void append_unit(std::string_view bytes, Span origin);

  /// The bytes of the original that [begin, end) of this text stand for, begin < end.
  Span origin(std::size_t begin, std::size_t end) const;

  /// Where in the original something inserted before byte `at` belongs.
  std::size_t origin_at(std::size_t at) const;

  /// Bytes [begin, end) as a text of their own.
  AlignedText slice(std::size_t begin, std::size_t end) const;

 private:
  // Bytes from `at` to the next run. Linear: byte for byte from origin.first on; otherwise each of
  // them stands for all of `origin`.
  struct Run {
    std::size_t at = 0;
    Span origin;
    bool linear = true;
  };
  const Run& run_of(std::size_t at) const;

  std::string_view view_;
  std::string storage_;
  std::vector<Run> runs_;
  std::size_t view_origin_ = 0;
  bool track_ = true;
  bool is_view_ = true;
};

}  // namespace lorapp::detail
