// The version of the library: the only place it is written; CMake and the packages read it here.
// Semantic versioning; before 1.0 a minor release may change the API.
#pragma once

#define LORAPP_VERSION_MAJOR 0
#define LORAPP_VERSION_MINOR 1
#define LORAPP_VERSION_PATCH 0

namespace lorapp {
inline constexpr const char* kVersion = "0.1.0";
}  // namespace lorapp
