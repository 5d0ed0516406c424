// Element types of GGUF files: the numbers that one of them stores in place of others.
// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, version 3.
#pragma once

#include <lorapp/export.hpp>

#include <torch/types.h>

#include <cstdint>
#include <string_view>
#include <vector>

namespace lorapp {

/// q8_0: 32 neighbours of a row share a float16 scale d = max|x| / 127; each is an int8 times d.
enum class GgufType { f32, f16, bf16, q8_0 };

/// Elements of a row that share a scale in q8_0.
inline constexpr std::int64_t kQ8BlockSize = 32;

/// "f32", "f16", "bf16" or "q8_0".
LORAPP_API std::string_view gguf_type_name(GgufType type);
/// The inverse; throws Error on any other name.
LORAPP_API GgufType parse_gguf_type(std::string_view name);

/// Bytes of a tensor of that shape. Error where q8_0 cannot hold it: rows of a whole number of
/// blocks.
LORAPP_API std::int64_t gguf_bytes(const std::vector<std::int64_t>& shape, GgufType type);

/// The bytes of `values` as the file has them, uint8 [gguf_bytes]; any floating dtype, which is
/// rounded once. Error for a number that is not finite, or that the type has no room for.
LORAPP_API torch::Tensor gguf_encode(const torch::Tensor& values, GgufType type);

/// The numbers that such bytes mean, float32 of `shape`.
LORAPP_API torch::Tensor gguf_decode(const torch::Tensor& bytes,
                                     const std::vector<std::int64_t>& shape,
                                     GgufType type);

}  // namespace lorapp
