#include <lorapp/error.hpp>
#include <lorapp/io/gguf.hpp>

#include <ATen/Parallel.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
#include <limits>

namespace lorapp {

namespace {

constexpr const char* kOp = "gguf";
constexpr std::string_view kNames[] = {"f32", "f16", "bf16", "q8_0"};

struct Q8Block {
  std::uint16_t scale;  // the bits of a float16
  std::int8_t codes[kQ8BlockSize];
};
static_assert(sizeof(Q8Block) == 34);

std::int64_t elements(const std::vector<std::int64_t>& shape) {
  std::int64_t count = 1;
  for (const std::int64_t size : shape) count *= size;
  return count;
}

torch::Dtype dtype_of(GgufType type) {
  if (type == GgufType::f16) return torch::kFloat16;
  return type == GgufType::bf16 ? torch::kBFloat16 : torch::kFloat32;
}

// As ggml: the codes come of the scale before it is rounded to float16, halves away from zero.
Q8Block encode_block(const float* values) {
  float largest = 0;
  for (std::int64_t i = 0; i < kQ8BlockSize; ++i) largest = std::max(largest, std::abs(values[i]));
  const float scale = largest / 127;
  const float inverse = scale > 0 ? 1 / scale : 0;
  Q8Block block;
  block.scale = c10::Half(scale).x;
  for (std::int64_t i = 0; i < kQ8BlockSize; ++i) {
    block.codes[i] = static_cast<std::int8_t>(std::round(values[i] * inverse));
  }
  return block;
}

}  // namespace

std::string_view gguf_type_name(GgufType type) { return kNames[static_cast<std::size_t>(type)]; }

GgufType parse_gguf_type(std::string_view name) {
  const auto* found = std::find(std::begin(kNames), std::end(kNames), name);
  LORAPP_CHECK(found != std::end(kNames), kOp, "the type \"", name,
               "\" is not known; expected f32, f16, bf16 or q8_0");
  return static_cast<GgufType>(found - std::begin(kNames));
}

std::int64_t gguf_bytes(const std::vector<std::int64_t>& shape, GgufType type) {
  const std::int64_t count = elements(shape);
  if (type != GgufType::q8_0) return count * (type == GgufType::f32 ? 4 : 2);
  LORAPP_CHECK(!shape.empty() && shape.back() % kQ8BlockSize == 0, kOp, "rows of ",
               shape.empty() ? 1 : shape.back(),
               " numbers are no whole number of q8_0's blocks of ", kQ8BlockSize);
  return count / kQ8BlockSize * static_cast<std::int64_t>(sizeof(Q8Block));
}

torch::Tensor gguf_encode(const torch::Tensor& values, GgufType type) {
  const std::int64_t bytes = gguf_bytes(values.sizes().vec(), type);
  const auto check_finite = [&](const torch::Tensor& tensor) {
    LORAPP_CHECK(tensor.isfinite().all().item<bool>(), kOp, "a number is not finite in ",
                 gguf_type_name(type));
  };
  if (type != GgufType::q8_0) {
    const torch::Tensor rounded = values.to(torch::kCPU, dtype_of(type)).contiguous();
    check_finite(rounded);
    return rounded.view({-1}).view(torch::kUInt8);
  }
  const torch::Tensor wide = values.to(torch::kCPU, torch::kFloat32).contiguous();
  const auto limit = 127 * static_cast<double>(std::numeric_limits<c10::Half>::max());
  LORAPP_CHECK(wide.numel() == 0 || wide.abs().max().item<double>() <= limit, kOp,
               "a number is not finite in ", gguf_type_name(type));
  torch::Tensor result = torch::empty({bytes}, torch::kUInt8);
  const float* from = wide.const_data_ptr<float>();
  auto* to = result.mutable_data_ptr<std::uint8_t>();
  at::parallel_for(0, wide.numel() / kQ8BlockSize, 1024, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const Q8Block block = encode_block(from + i * kQ8BlockSize);
      std::memcpy(to + i * static_cast<std::int64_t>(sizeof block), &block, sizeof block);
    }
  });
  return result;
}

torch::Tensor gguf_decode(const torch::Tensor& bytes,
                          const std::vector<std::int64_t>& shape,
                          GgufType type) {
  LORAPP_CHECK(bytes.scalar_type() == torch::kUInt8 && bytes.numel() == gguf_bytes(shape, type),
               kOp, bytes.numel(), " bytes are no tensor of the shape ", torch::IntArrayRef(shape),
               " in ", gguf_type_name(type));
  const torch::Tensor flat = bytes.contiguous().view({-1});
  if (type != GgufType::q8_0) {
    return flat.clone().view(dtype_of(type)).to(torch::kFloat32).view(shape);
  }
  torch::Tensor result = torch::empty(shape, torch::kFloat32);
  const auto* from = flat.const_data_ptr<std::uint8_t>();
  auto* to = result.mutable_data_ptr<float>();
  for (std::int64_t i = 0; i < result.numel() / kQ8BlockSize; ++i) {
    Q8Block block;
    std::memcpy(&block, from + i * static_cast<std::int64_t>(sizeof block), sizeof block);
    const float scale = c10::Half(block.scale, c10::Half::from_bits());
    for (std::int64_t j = 0; j < kQ8BlockSize; ++j) {
      to[i * kQ8BlockSize + j] = scale * static_cast<float>(block.codes[j]);
    }
  }
  return result;
}

}  // namespace lorapp
