// The names that someone who wrote another one may have meant, for error messages.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace lorapp::detail {

/// Up to `count` of the candidates that are near `name` (Levenshtein's distance up to a third of
/// its length, at least 2), nearest first.
std::vector<std::string> nearest_names(std::string_view name,
                                       const std::vector<std::string>& candidates,
                                       std::size_t count = 3);

/// "a, b, c", cut to `limit` names with the number of the rest.
std::string list_names(const std::vector<std::string>& names, std::size_t limit = 20);

}  // namespace lorapp::detail
