// Names of element types.
#include "io/dtypes.hpp"

#include <lorapp/error.hpp>
#include <lorapp/io/dtype.hpp>

namespace lorapp {

namespace {

constexpr const char* kOp = "dtype";

struct HfDtype {
  std::string_view name;
  c10::ScalarType type;
};

// PyTorch's names, which config.json carries.
constexpr HfDtype kHfDtypes[] = {
    {"float32", c10::ScalarType::Float},
    {"bfloat16", c10::ScalarType::BFloat16},
    {"float16", c10::ScalarType::Half},
    {"float64", c10::ScalarType::Double},
    {"float8_e4m3fn", c10::ScalarType::Float8_e4m3fn},
    {"float8_e5m2", c10::ScalarType::Float8_e5m2},
    {"int64", c10::ScalarType::Long},
    {"int32", c10::ScalarType::Int},
    {"int16", c10::ScalarType::Short},
    {"int8", c10::ScalarType::Char},
    {"uint8", c10::ScalarType::Byte},
    {"bool", c10::ScalarType::Bool},
};

template <class Table>
std::string names_of(const Table& table) {
  std::string names;
  for (const auto& entry : table) names += (names.empty() ? "" : ", ") + std::string(entry.name);
  return names;
}

}  // namespace

c10::ScalarType parse_safetensors_dtype(std::string_view name) {
  const auto* dtype = detail::find_safetensors_dtype(name);
  LORAPP_CHECK(dtype != nullptr, kOp, "'", name, "' is no safetensors type; expected one of ",
               names_of(detail::kSafetensorsDtypes));
  LORAPP_CHECK(dtype->torch.has_value(), kOp, name, " packs elements of ", dtype->bits,
               " bits; LibTorch has no such type, and lorapp cannot use it");
  return *dtype->torch;
}

std::string safetensors_dtype_name(c10::ScalarType type) {
  const auto* dtype = detail::find_safetensors_dtype(type);
  LORAPP_CHECK(dtype != nullptr, kOp, "safetensors has no type for ", c10::toString(type),
               "; it has ", names_of(detail::kSafetensorsDtypes));
  return std::string(dtype->name);
}

c10::ScalarType parse_hf_dtype(std::string_view name) {
  constexpr std::string_view kPrefix = "torch.";
  const std::string_view bare = name.starts_with(kPrefix) ? name.substr(kPrefix.size()) : name;
  for (const HfDtype& dtype : kHfDtypes) {
    if (dtype.name == bare) return dtype.type;
  }
  detail::fail(
      kOp, detail::concat("'", name, "' is no known type; expected one of ", names_of(kHfDtypes)));
}

std::string hf_dtype_name(c10::ScalarType type) {
  for (const HfDtype& dtype : kHfDtypes) {
    if (dtype.type == type) return std::string(dtype.name);
  }
  detail::fail(kOp, detail::concat(c10::toString(type), " has no name; expected one of ",
                                   names_of(kHfDtypes)));
}

}  // namespace lorapp
