// KvCache: keys and values of the tokens a model has seen, for decoding one token at a time.
// Position 0 is the first token; a forward pass with a cache starts at position length().
#pragma once

#include <lorapp/error.hpp>
#include <lorapp/export.hpp>

#include <torch/types.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

namespace lorapp {

/// The cache of one sequence, empty at first; it takes its sizes from the model that fills it and
/// grows as needed. With a sliding window, what no later token can see is dropped when it grows.
class LORAPP_API KvCache {
 public:
  /// The number of tokens seen, which is the position of the next one.
  std::int64_t length() const noexcept { return length_; }

  /// Forgets everything; the memory is kept for the next sequence.
  void reset() noexcept { truncate_rows(0); }

  /// True if the first `length` tokens can be kept alone: with a sliding window, old keys may be
  /// gone.
  bool can_truncate(std::int64_t length) const noexcept {
    if (length < 0 || length > length_) return false;
    return length == 0 || std::all_of(layers_.begin(), layers_.end(), [&](const Layer& layer) {
             return layer.first == 0 || length - (layer.window - 1) >= layer.first;
           });
  }

  /// Keeps the first `length` tokens, e.g. a prefix shared with the next prompt.
  void truncate(std::int64_t length) {
    LORAPP_CHECK(length >= 0 && length <= length_, "kv_cache", "cannot go back to ", length,
                 " tokens: it has seen ", length_);
    LORAPP_CHECK(can_truncate(length), "kv_cache", "cannot go back from ", length_, " to ", length,
                 " tokens: the sliding window has dropped what they see");
    truncate_rows(length);
  }

  /// Bytes of all buffers.
  std::int64_t nbytes() const {
    std::int64_t bytes = 0;
    for (const Layer& layer : layers_) {
      if (layer.keys.defined()) bytes += 2 * static_cast<std::int64_t>(layer.keys.nbytes());
    }
    return bytes;
  }

  /// Views of one layer's buffers.
  struct Rows {
    torch::Tensor new_keys, new_values;  ///< [T, kv_heads, head_dim]: to be written
    torch::Tensor keys, values;          ///< [kv_heads, L, head_dim], of which they are the last T
  };

  /// Makes room in one layer for the keys and values of the next T tokens, which are to be like
  /// `keys` [T, kv_heads, head_dim]. length() moves only when advance() ends the forward pass, so
  /// that one that throws leaves no trace.
  Rows extend(std::size_t layer_index,
              const torch::Tensor& keys,
              std::optional<std::int64_t> sliding_window) {
    LORAPP_CHECK(!(torch::GradMode::is_enabled() && keys.requires_grad()), "kv_cache",
                 "no gradient flows through a cache; use torch::NoGradGuard around generation");
    if (layer_index >= layers_.size()) layers_.resize(layer_index + 1);
    Layer& layer = layers_[layer_index];
    layer.window = sliding_window.value_or(0);
    const std::int64_t count = keys.size(0);
    make_room(layer, keys, count);
    const std::int64_t begin = length_ - layer.first;
    const std::int64_t end = begin + count;
    return {layer.keys.slice(1, begin, end).transpose(0, 1),
            layer.values.slice(1, begin, end).transpose(0, 1), layer.keys.slice(1, 0, end),
            layer.values.slice(1, 0, end)};
  }

  /// extend(), and writes keys and values there. Returns all that the layer holds.
  std::pair<torch::Tensor, torch::Tensor> append(std::size_t layer_index,
                                                 const torch::Tensor& keys,
                                                 const torch::Tensor& values,
                                                 std::optional<std::int64_t> sliding_window) {
    const Rows rows = extend(layer_index, keys, sliding_window);
    rows.new_keys.copy_(keys);
    rows.new_values.copy_(values);
    return {rows.keys, rows.values};
  }

  /// Ends a forward pass over `count` tokens, after every layer has appended.
  void advance(std::int64_t count) noexcept { length_ += count; }

 private:
  static constexpr std::int64_t kChunk = 256;

  struct Layer {
    torch::Tensor keys;       // [kv_heads, capacity, head_dim]: the rows of a head are contiguous
    torch::Tensor values;     // the same
    std::int64_t first = 0;   // position of row 0
    std::int64_t window = 0;  // 0: none
  };

  void truncate_rows(std::int64_t length) noexcept {
    length_ = length;
    if (length > 0) return;
    for (Layer& layer : layers_) layer.first = 0;
  }

  void make_room(Layer& layer, const torch::Tensor& like, std::int64_t count) const {
    const std::int64_t rows = layer.keys.defined() ? length_ - layer.first : 0;
    const bool fits_model = layer.keys.defined() && layer.keys.size(0) == like.size(1) &&
                            layer.keys.size(2) == like.size(2) &&
                            layer.keys.scalar_type() == like.scalar_type() &&
                            layer.keys.device() == like.device();
    LORAPP_CHECK(fits_model || rows == 0, "kv_cache",
                 "filled by a model of other sizes; reset() it");
    const std::int64_t capacity = fits_model ? layer.keys.size(1) : 0;
    if (rows + count <= capacity) return;
    const std::int64_t kept = layer.window > 0 ? std::min(rows, layer.window - 1) : rows;
    // Half as much again, so that the copies of a long text stay proportional to its length.
    const std::int64_t wanted = kept + std::max(count, kept / 2);
    const std::int64_t new_capacity = (wanted + kChunk - 1) / kChunk * kChunk;
    for (torch::Tensor* buffer : {&layer.keys, &layer.values}) {
      torch::Tensor grown =
          torch::empty({like.size(1), new_capacity, like.size(2)}, like.options());
      if (kept > 0) grown.slice(1, 0, kept).copy_(buffer->slice(1, rows - kept, rows));
      *buffer = std::move(grown);
    }
    layer.first = length_ - kept;
  }

  std::vector<Layer> layers_;
  std::int64_t length_ = 0;
};

}  // namespace lorapp
