// The checks of QuantizedTensor::from_parts, and moves between devices.
#include <lorapp/error.hpp>
#include <lorapp/quant/quantized_tensor.hpp>

#include "quant/checks.hpp"
#include "quant/packed_codes.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

namespace lorapp {
namespace {

std::int64_t ceil_div(std::int64_t n, std::int64_t d) { return n / d + (n % d != 0 ? 1 : 0); }

std::string described(const at::Tensor& tensor) {
  if (!tensor.defined()) return "nothing";
  return detail::concat(tensor.scalar_type(), " with ", tensor.numel(), " elements");
}

// A tensor of the wanted dtype and number of elements, made flat and contiguous; else a problem.
void expect(Problems& problems,
            const char* what,
            at::Tensor& tensor,
            at::ScalarType dtype,
            std::int64_t numel,
            const at::Device& device) {
  if (!tensor.defined() || tensor.scalar_type() != dtype || tensor.numel() != numel) {
    problems.add(what, " is ", described(tensor), ", expected ", dtype, " with ", numel,
                 " elements");
  } else if (tensor.device() != device) {
    problems.add(what, " is on ", tensor.device(), ", the codes are on ", device);
  } else {
    tensor = tensor.detach().reshape({-1}).contiguous();
  }
}

// A NaN or infinite scale would make a whole block NaN: say where it is.
void expect_finite(Problems& problems, const char* what, const at::Tensor& tensor) {
  if (!tensor.defined() || !tensor.device().is_cpu() || tensor.scalar_type() != at::kFloat ||
      tensor.dim() != 1)
    return;
  const float* values = tensor.const_data_ptr<float>();
  for (std::int64_t i = 0; i < tensor.numel(); ++i) {
    if (std::isfinite(values[i])) continue;
    problems.add(what, "[", i, "] is ", values[i], ", expected a finite number");
    return;
  }
}

// Scales that are not finite once they are expanded, though all that they are made of is.
void expect_finite_scales(Problems& problems, const QuantizedTensor::Parts& parts) {
  if (!parts.nested_absmax.device().is_cpu()) return;
  const float factor = parts.nested_absmax.abs().max().item<float>();
  const float code = parts.nested_code.abs().max().item<float>();
  if (std::isfinite(code * factor + std::abs(*parts.nested_offset))) return;
  problems.add("nested_absmax times nested_quant_map plus nested_offset reaches ", factor, " * ",
               code, " + ", *parts.nested_offset, ", expected scales that float32 holds");
}

}  // namespace

QuantizedTensor QuantizedTensor::from_parts(Parts parts, std::string_view name) {
  Problems problems("quantized_tensor", std::string(name));
  if (!detail::is_valid_blocksize(parts.blocksize)) {
    problems.add("blocksize is ", parts.blocksize, ", expected a power of two from 32 to 4096");
  }
  if (!detail::is_quantizable(parts.dtype)) {
    problems.add("dtype is ", parts.dtype, ", expected float32, bfloat16 or float16");
  }
  // The product of the sizes, checked against overflow: the shape may come from a damaged file.
  std::int64_t n = parts.shape.empty() ? 0 : 1;
  bool valid_shape = true;
  for (const std::int64_t size : parts.shape) {
    valid_shape = valid_shape && size > 0 && !__builtin_mul_overflow(n, size, &n);
  }
  if (!valid_shape || parts.shape.empty()) {
    problems.add("shape is ", at::IntArrayRef(parts.shape), ", expected positive sizes");
  }
  if (!parts.codes.defined()) problems.add("codes are missing");
  problems.throw_if_any();  // the rest is checked against these

  const at::Device device = parts.codes.device();
  const std::int64_t blocks = ceil_div(n, parts.blocksize);
  const bool nested = parts.nested_absmax.defined() || parts.nested_code.defined() ||
                      parts.nested_offset.has_value();
  expect(problems, "codes", parts.codes, at::kByte, ceil_div(n, 2), device);
  expect(problems, "absmax", parts.absmax, nested ? at::kByte : at::kFloat, blocks, device);
  expect(problems, "quant_map", parts.code, at::kFloat, 16, device);
  expect_finite(problems, "quant_map", parts.code);
  if (!nested) expect_finite(problems, "absmax", parts.absmax);
  if (nested) {
    if (parts.nested_blocksize < 1) {
      problems.add("nested_blocksize is ", parts.nested_blocksize, ", expected at least 1");
    } else {
      expect(problems, "nested_absmax", parts.nested_absmax, at::kFloat,
             ceil_div(blocks, parts.nested_blocksize), device);
      expect_finite(problems, "nested_absmax", parts.nested_absmax);
    }
    expect(problems, "nested_quant_map", parts.nested_code, at::kFloat, 256, device);
    expect_finite(problems, "nested_quant_map", parts.nested_code);
    if (!parts.nested_offset) {
      problems.add("nested_offset is missing");
    } else if (!std::isfinite(*parts.nested_offset)) {
      problems.add("nested_offset is ", *parts.nested_offset, ", expected a finite number");
    }
  }
  problems.throw_if_any();
  if (nested) expect_finite_scales(problems, parts);
  problems.throw_if_any();

  QuantizedTensor tensor;
  tensor.parts_ = std::move(parts);
  const at::Tensor code = tensor.parts_.code.to(at::kCPU);
  std::copy_n(code.const_data_ptr<float>(), tensor.code_values_.size(),
              tensor.code_values_.begin());
  return tensor;
}

std::int64_t QuantizedTensor::size(std::size_t dim) const {
  LORAPP_CHECK(dim < parts_.shape.size(), "quantized_tensor", "size(", dim, ") of the shape ",
               at::IntArrayRef(parts_.shape));
  return parts_.shape[dim];
}

std::int64_t QuantizedTensor::numel() const noexcept {
  std::int64_t n = parts_.shape.empty() ? 0 : 1;
  for (const std::int64_t size : parts_.shape) n *= size;
  return n;
}

std::int64_t QuantizedTensor::nbytes() const {
  std::int64_t bytes = packed_ != nullptr ? packed_->nbytes() : 0;
  for (const at::Tensor& tensor :
       {parts_.codes, parts_.absmax, parts_.code, parts_.nested_absmax, parts_.nested_code}) {
    if (tensor.defined()) bytes += static_cast<std::int64_t>(tensor.nbytes());
  }
  return bytes;
}

QuantizedTensor QuantizedTensor::packed() const {
  LORAPP_CHECK(defined(), "quantized_tensor", "packed(): the tensor is empty");
  if (is_packed() || !detail::PackedCodes::fits(parts_)) return *this;
  QuantizedTensor tensor = *this;
  tensor.packed_ = std::make_shared<const detail::PackedCodes>(parts_);
  tensor.parts_.codes = at::Tensor();
  tensor.parts_.absmax = at::Tensor();
  return tensor;
}

at::Tensor QuantizedTensor::codes() const {
  return packed_ != nullptr ? packed_->codes(parts_) : parts_.codes;
}

at::Tensor QuantizedTensor::absmax() const {
  return packed_ != nullptr ? packed_->absmax(parts_) : parts_.absmax;
}

QuantizedTensor::Parts QuantizedTensor::parts() const {
  Parts parts = parts_;
  parts.codes = codes();
  parts.absmax = absmax();
  return parts;
}

QuantizedTensor QuantizedTensor::to(torch::Device device) const {
  LORAPP_CHECK(defined(), "quantized_tensor", "to(", device, "): the tensor is empty");
  if (device == this->device()) return *this;
  QuantizedTensor moved;
  moved.code_values_ = code_values_;
  moved.parts_ = parts();
  for (at::Tensor* tensor : {&moved.parts_.codes, &moved.parts_.absmax, &moved.parts_.code,
                             &moved.parts_.nested_absmax, &moved.parts_.nested_code}) {
    if (tensor->defined()) *tensor = tensor->to(device);
  }
  return moved;
}

}  // namespace lorapp
