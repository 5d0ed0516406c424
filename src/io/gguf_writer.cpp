#include "io/gguf_writer.hpp"

#include <lorapp/error.hpp>

#include <algorithm>
#include <string_view>
#include <type_traits>

namespace lorapp::detail {

namespace {

constexpr const char* kOp = "gguf";
constexpr std::uint64_t kAlignment = 32;
constexpr std::int64_t kChunk = std::int64_t{1} << 18;  // numbers that are converted at once

std::uint64_t aligned(std::uint64_t size) {
  return (size + kAlignment - 1) / kAlignment * kAlignment;
}

/// The format's number of an element type.
std::uint32_t tensor_type(GgufType type) {
  switch (type) {
    case GgufType::f32:
      return 0;
    case GgufType::f16:
      return 1;
    case GgufType::q8_0:
      return 8;
    case GgufType::bf16:
      return 30;
  }
  return 0;
}

class Bytes {
 public:
  template <class Number>
  void number(Number value) {
    static_assert(std::is_arithmetic_v<Number>);
    const auto* bytes = reinterpret_cast<const char*>(&value);
    text_.append(bytes, sizeof value);  // the format and the platforms are little-endian
  }
  void string(std::string_view text) {
    number(static_cast<std::uint64_t>(text.size()));
    text_ += text;
  }
  void element(std::uint32_t value) { number(value); }
  void element(std::int32_t value) { number(value); }
  void element(float value) { number(value); }
  void element(bool value) { number(static_cast<std::uint8_t>(value)); }
  void element(const std::string& value) { string(value); }

  /// The type of a value, then the value.
  void value(const GgufValue& any) {
    std::visit([this](const auto& value) { typed(value); }, any);
  }

  const std::string& text() const { return text_; }

 private:
  static constexpr std::uint32_t kArray = 9;
  static std::uint32_t type_of(std::uint32_t) { return 4; }
  static std::uint32_t type_of(std::int32_t) { return 5; }
  static std::uint32_t type_of(float) { return 6; }
  static std::uint32_t type_of(bool) { return 7; }
  static std::uint32_t type_of(const std::string&) { return 8; }

  template <class T>
  void typed(const T& value) {
    number(type_of(value));
    element(value);
  }
  template <class T>
  void typed(const std::vector<T>& values) {
    number(kArray);
    number(type_of(T{}));
    number(static_cast<std::uint64_t>(values.size()));
    for (const T& value : values) element(value);
  }

  std::string text_;
};

}  // namespace

void GgufWriter::declare(std::string name, std::vector<std::int64_t> shape, GgufType type) {
  LORAPP_CHECK(!started_, kOp, path_.string(), ": ", name, " comes after the header");
  tensors_.push_back({std::move(name), std::move(shape), type});
}

void GgufWriter::append(const void* data, std::size_t size) {
  file_.write(data, size);
  num_bytes_ += size;
}

void GgufWriter::align() {
  const std::string zeros(kAlignment, '\0');
  append(zeros.data(), aligned(num_bytes_) - num_bytes_);
}

void GgufWriter::write_header() {
  started_ = true;
  Bytes header;
  for (const char letter : {'G', 'G', 'U', 'F'}) header.number(letter);
  header.number(std::uint32_t{3});
  header.number(static_cast<std::uint64_t>(tensors_.size()));
  header.number(static_cast<std::uint64_t>(values_.size()));
  for (const auto& [key, value] : values_) {
    header.string(key);
    header.value(value);
  }
  std::uint64_t offset = 0;
  for (const Declared& tensor : tensors_) {
    header.string(tensor.name);
    header.number(static_cast<std::uint32_t>(tensor.shape.size()));
    for (auto size = tensor.shape.rbegin(); size != tensor.shape.rend(); ++size) {
      header.number(static_cast<std::uint64_t>(*size));  // the fastest dimension first
    }
    header.number(tensor_type(tensor.type));
    header.number(offset);
    offset += aligned(static_cast<std::uint64_t>(gguf_bytes(tensor.shape, tensor.type)));
  }
  append(header.text().data(), header.text().size());
  align();
}

void GgufWriter::write(const std::string& name, const torch::Tensor& values) {
  if (!started_) write_header();
  LORAPP_CHECK(next_ < tensors_.size() && tensors_[next_].name == name, kOp, path_.string(), ": ",
               name, " is not the tensor that comes next",
               next_ < tensors_.size() ? ", which is " + tensors_[next_].name : std::string());
  const Declared& tensor = tensors_[next_++];
  LORAPP_CHECK(values.sizes() == torch::IntArrayRef(tensor.shape), kOp, path_.string(), ": ", name,
               " has the shape ", values.sizes(), "; it was declared as ",
               torch::IntArrayRef(tensor.shape));
  const std::int64_t rows = values.size(0);
  const std::int64_t step = std::max<std::int64_t>(1, kChunk * rows / (values.numel() + 1));
  for (std::int64_t begin = 0; begin < rows; begin += step) {
    try {
      const torch::Tensor bytes =
          gguf_encode(values.slice(0, begin, std::min(rows, begin + step)), tensor.type);
      append(bytes.const_data_ptr(), bytes.nbytes());
    } catch (const Error& error) {
      fail(kOp, path_.string() + ": " + name + ": " + error.what());
    }
  }
  align();
}

void GgufWriter::finish() {
  if (!started_) write_header();
  LORAPP_CHECK(next_ == tensors_.size(), kOp, path_.string(), ": ", tensors_[next_].name,
               " was declared and not written");
  file_.commit();
}

}  // namespace lorapp::detail
