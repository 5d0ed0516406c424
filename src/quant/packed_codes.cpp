// Between the order of files and the packed layout; both directions touch every code once.
#include "quant/packed_codes.hpp"

#include "quant/float_type.hpp"
#include "quant/grain.hpp"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <cstring>
#include <numeric>

namespace lorapp::detail {
namespace {

using kernels::kLineBytes;
using kernels::kLineColumns;
using kernels::kPanelRows;

// Calls f(row, column, index of the packed scale, index of the scale in files) for each scale of
// the panels [begin, end). A block may be several spans of a row, or several rows.
template <class F>
void for_each_scale(const QuantizedTensor::Parts& parts,
                    std::int64_t span,
                    std::int64_t begin,
                    std::int64_t end,
                    F&& f) {
  const std::int64_t rows = parts.shape[0], columns = parts.shape[1], spans = columns / span;
  for (std::int64_t panel = begin; panel < end; ++panel) {
    for (std::int64_t s = 0; s < spans; ++s) {
      for (std::int64_t r = 0; r < kPanelRows; ++r) {
        const std::int64_t row = panel * kPanelRows + r;
        const std::int64_t flat = row * columns + s * span;
        f((panel * spans + s) * kPanelRows + r, row < rows ? flat / parts.blocksize : -1);
      }
    }
  }
}

template <class T>
void pack_scales(const QuantizedTensor::Parts& parts,
                 std::int64_t span,
                 std::int64_t begin,
                 std::int64_t end,
                 T* scales) {
  const T* absmax = parts.absmax.const_data_ptr<T>();
  for_each_scale(parts, span, begin, end, [&](std::int64_t packed, std::int64_t block) {
    scales[packed] = block >= 0 ? absmax[block] : T(0);
  });
}

template <class T>
void unpack_scales(const QuantizedTensor::Parts& parts,
                   std::int64_t span,
                   const T* scales,
                   T* absmax) {
  const std::int64_t panels = kernels::panels_of(parts.shape[0]);
  for_each_scale(parts, span, 0, panels, [&](std::int64_t packed, std::int64_t block) {
    if (block >= 0) absmax[block] = scales[packed];
  });
}

}  // namespace

bool PackedCodes::fits(const Parts& parts) {
  if (parts.shape.size() != 2 || !parts.codes.device().is_cpu()) return false;
  return std::gcd(parts.shape[1], parts.blocksize) % kernels::kMinSpan == 0;
}

PackedCodes::PackedCodes(const Parts& parts)
    : lines_(kernels::line_bytes(parts.shape[0], parts.shape[1])),
      span_(std::gcd(parts.shape[1], parts.blocksize)) {
  const std::int64_t rows = parts.shape[0], columns = parts.shape[1];
  const bool nested = parts.absmax.scalar_type() == at::kByte;
  const std::int64_t count = kernels::scale_count(rows, columns, span_);
  scales_ = AlignedBuffer(nested ? count : count * 4);
  const std::int64_t line_count = columns / kLineColumns, row_bytes = columns / 2;
  const auto* codes = parts.codes.const_data_ptr<std::uint8_t>();
  at::parallel_for(0, kernels::panels_of(rows), grain_for(kPanelRows * columns, kCodeGrain),
                   [&](std::int64_t begin, std::int64_t end) {
                     for (std::int64_t panel = begin; panel < end; ++panel) {
                       auto* words = lines_.as<std::uint32_t>() + panel * line_count * kPanelRows;
                       for (std::int64_t r = 0; r < kPanelRows; ++r) {
                         const std::int64_t row = panel * kPanelRows + r;
                         for (std::int64_t line = 0; line < line_count; ++line) {
                           std::uint32_t bytes = 0;
                           if (row < rows)
                             std::memcpy(&bytes, codes + row * row_bytes + line * 4, 4);
                           words[line * kPanelRows + r] = kernels::packed_word(bytes);
                         }
                       }
                     }
                     if (nested) {
                       pack_scales(parts, span_, begin, end, scales_.as<std::uint8_t>());
                     } else {
                       pack_scales(parts, span_, begin, end, scales_.as<float>());
                     }
                   });
}

at::Tensor PackedCodes::codes(const Parts& parts) const {
  const std::int64_t rows = parts.shape[0], columns = parts.shape[1];
  const std::int64_t line_count = columns / kLineColumns, row_bytes = columns / 2;
  at::Tensor codes = at::empty({rows * row_bytes}, at::kByte);
  auto* out = codes.mutable_data_ptr<std::uint8_t>();
  at::parallel_for(
      0, rows, kPanelRows * grain_for(kPanelRows * columns, kCodeGrain),
      [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t row = begin; row < end; ++row) {
          const auto* words = lines_.as<std::uint32_t>() +
                              row / kPanelRows * line_count * kPanelRows + row % kPanelRows;
          for (std::int64_t line = 0; line < line_count; ++line) {
            const std::uint32_t bytes = kernels::unpacked_word(words[line * kPanelRows]);
            std::memcpy(out + row * row_bytes + line * 4, &bytes, 4);
          }
        }
      });
  return codes;
}

at::Tensor PackedCodes::absmax(const Parts& parts) const {
  const bool nested = parts.nested_absmax.defined();
  const std::int64_t numel = parts.shape[0] * parts.shape[1];
  at::Tensor absmax =
      at::empty({(numel + parts.blocksize - 1) / parts.blocksize}, nested ? at::kByte : at::kFloat);
  if (nested) {
    unpack_scales(parts, span_, scales_.as<std::uint8_t>(),
                  absmax.mutable_data_ptr<std::uint8_t>());
  } else {
    unpack_scales(parts, span_, scales_.as<float>(), absmax.mutable_data_ptr<float>());
  }
  return absmax;
}

kernels::PackedWeight PackedCodes::view(const Parts& parts) const {
  const bool nested = parts.nested_absmax.defined();
  return {
      .lines = lines_.data(),
      .absmax = nested ? nullptr : scales_.as<float>(),
      .nested = nested ? scales_.data() : nullptr,
      .rows = parts.shape[0],
      .columns = parts.shape[1],
      .span = span_,
      .value = parts.code.const_data_ptr<float>(),
      .via = float_type(parts.dtype),
      .map = nested ? parts.nested_code.const_data_ptr<float>() : nullptr,
      .nested_absmax = nested ? parts.nested_absmax.const_data_ptr<float>() : nullptr,
      .offset = parts.nested_offset.value_or(0.0f),
      .blocksize = parts.blocksize,
      .nested_blocksize = parts.nested_blocksize,
  };
}

}  // namespace lorapp::detail
