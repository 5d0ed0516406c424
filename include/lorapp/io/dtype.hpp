// Names of element types: safetensors' ("BF16") and Hugging Face's ("bfloat16").
// A name that is not known, or that LibTorch has no type for, is an Error that lists what is
// accepted.
#pragma once

#include <lorapp/export.hpp>

#include <c10/core/ScalarType.h>

#include <string>
#include <string_view>

namespace lorapp {

/// The type of a safetensors name, e.g. "BF16". The sub-byte types F4, F6_E2M3 and F6_E3M2 are part
/// of the format, but have no LibTorch type of one element, and are refused.
LORAPP_API c10::ScalarType parse_safetensors_dtype(std::string_view name);

/// The safetensors name of a type, e.g. "BF16".
LORAPP_API std::string safetensors_dtype_name(c10::ScalarType dtype);

/// The type of a name as config.json writes it ("bfloat16", also with the prefix "torch.").
LORAPP_API c10::ScalarType parse_hf_dtype(std::string_view name);

/// The name that config.json holds for a type, e.g. "bfloat16".
LORAPP_API std::string hf_dtype_name(c10::ScalarType dtype);

}  // namespace lorapp
