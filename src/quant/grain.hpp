// How finely work is split over torch's threads.
// Private to src/.
#pragma once

#include <algorithm>
#include <cstdint>

namespace lorapp::detail {

/// Work that a thread takes at least, tens of microseconds: below, starting one costs more than it
/// saves.
inline constexpr std::int64_t kProductGrain = 1 << 18;  // multiplications, or weights decoded
inline constexpr std::int64_t kCodeGrain = 1 << 16;     // codes that are made or moved
inline constexpr std::int64_t kElementGrain = 1 << 14;  // elements of a pass over rows

/// `grain` in units of which each is `work_of_one`.
inline std::int64_t grain_for(std::int64_t work_of_one, std::int64_t grain) {
  return std::max<std::int64_t>(1, grain / std::max<std::int64_t>(1, work_of_one));
}

}  // namespace lorapp::detail
