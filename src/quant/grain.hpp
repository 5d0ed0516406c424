// How finely work is split over torch's threads.
// Private to src/quant.
#pragma once

#include <algorithm>
#include <cstdint>

namespace lorapp::detail {

/// Units that a thread takes at least, when one is `work_of_one` multiplications or bytes: below,
/// starting a thread costs more than it saves.
inline std::int64_t grain_for(std::int64_t work_of_one) {
  constexpr std::int64_t kGrain = 1 << 18;
  return std::max<std::int64_t>(1, kGrain / std::max<std::int64_t>(1, work_of_one));
}

}  // namespace lorapp::detail
