// The element types of the safetensors format.
// The order is the official writer's: a file holds its tensors from the last type here to the
// first.
#pragma once

#include <c10/core/ScalarType.h>

#include <array>
#include <optional>
#include <string_view>

namespace lorapp::detail {

struct SafetensorsDtype {
  std::string_view name;
  int bits;
  /// Nothing where LibTorch has no type whose element is one element of the file.
  std::optional<c10::ScalarType> torch;
};

inline constexpr std::array<SafetensorsDtype, 22> kSafetensorsDtypes = {{
    {"BOOL", 8, c10::ScalarType::Bool},
    {"F4", 4, std::nullopt},
    {"F6_E2M3", 6, std::nullopt},
    {"F6_E3M2", 6, std::nullopt},
    {"U8", 8, c10::ScalarType::Byte},
    {"I8", 8, c10::ScalarType::Char},
    {"F8_E5M2", 8, c10::ScalarType::Float8_e5m2},
    {"F8_E4M3", 8, c10::ScalarType::Float8_e4m3fn},
    {"F8_E8M0", 8, c10::ScalarType::Float8_e8m0fnu},
    {"F8_E4M3FNUZ", 8, c10::ScalarType::Float8_e4m3fnuz},
    {"F8_E5M2FNUZ", 8, c10::ScalarType::Float8_e5m2fnuz},
    {"I16", 16, c10::ScalarType::Short},
    {"U16", 16, c10::ScalarType::UInt16},
    {"F16", 16, c10::ScalarType::Half},
    {"BF16", 16, c10::ScalarType::BFloat16},
    {"I32", 32, c10::ScalarType::Int},
    {"U32", 32, c10::ScalarType::UInt32},
    {"F32", 32, c10::ScalarType::Float},
    {"C64", 64, c10::ScalarType::ComplexFloat},
    {"F64", 64, c10::ScalarType::Double},
    {"I64", 64, c10::ScalarType::Long},
    {"U64", 64, c10::ScalarType::UInt64},
}};

/// The entry of a format name; null for a name that the format does not have.
inline const SafetensorsDtype* find_safetensors_dtype(std::string_view name) {
  for (const SafetensorsDtype& dtype : kSafetensorsDtypes) {
    if (dtype.name == name) return &dtype;
  }
  return nullptr;
}

/// The entry of a LibTorch type; null for a type that the format cannot hold.
inline const SafetensorsDtype* find_safetensors_dtype(c10::ScalarType type) {
  for (const SafetensorsDtype& dtype : kSafetensorsDtypes) {
    if (dtype.torch == type) return &dtype;
  }
  return nullptr;
}

}  // namespace lorapp::detail
