// A streaming JSON reader that knows the header's shape: nothing is stored that the header does not
// need.
#include "io/safetensors_header.hpp"

#include "io/dtypes.hpp"
#include "json_file.hpp"

#include <lorapp/error.hpp>

#include <algorithm>
#include <limits>
#include <set>

namespace lorapp::detail {

namespace {

using nlohmann::json;

constexpr const char* kOp = "safetensors";
constexpr const char* kMetadata = "__metadata__";
/// A header with this many problems is not worth reading on.
constexpr std::size_t kMaxProblems = 100;
/// LibTorch's own kernels handle up to 64 dimensions.
constexpr std::size_t kMaxRank = 64;

// The events of
// {"__metadata__": {text: text}, name: {"dtype": text, "shape": [n…], "data_offsets": [n, n]}}.
class HeaderHandler : public nlohmann::json_sax<json> {
 public:
  HeaderHandler(SafetensorsHeader& header, Problems& problems)
      : header_(header), problems_(problems) {}

  bool null() override {
    if (place_ == Place::name && name_ == kMetadata)
      return true;  // the official reader takes it too
    return value("null");
  }
  bool boolean(bool flag) override { return value(flag ? "true" : "false"); }
  bool number_integer(json::number_integer_t number) override {
    return value(std::to_string(number));
  }
  bool number_unsigned(json::number_unsigned_t number) override {
    if (place_ == Place::numbers) {
      auto& numbers = key_ == "shape" ? shape_ : offsets_;
      if (numbers.size() <= kMaxRank) numbers.push_back(number);
      return true;
    }
    return value(std::to_string(number));
  }
  bool number_float(json::number_float_t, const std::string& text) override { return value(text); }
  bool string(std::string& text) override {
    if (place_ == Place::metadata) {
      header_.metadata[key_] = text;
      return true;
    }
    if (place_ == Place::tensor && key_ == "dtype") {
      info_.dtype = text;
      return true;
    }
    return value(in_quotes(text));
  }
  bool binary(json::binary_t&) override { return value("binary data"); }

  bool start_object(std::size_t) override {
    if (skipped_ > 0 || ignored()) {
      ++skipped_;
    } else if (place_ == Place::start) {
      place_ = Place::name;
    } else if (place_ == Place::name) {
      place_ = name_ == kMetadata ? Place::metadata : Place::tensor;
      keys_.clear();
      info_ = {};
      shape_.clear();
      offsets_.clear();
      wrong_ = false;
    } else {
      complain("an object");
      ++skipped_;
    }
    return go_on();
  }
  bool end_object() override {
    if (skipped_ > 0) {
      --skipped_;
    } else if (place_ == Place::name) {
      place_ = Place::end;
    } else {
      if (place_ == Place::tensor) finish_tensor();
      place_ = Place::name;
    }
    return go_on();
  }
  bool start_array(std::size_t) override {
    if (skipped_ > 0 || ignored()) {
      ++skipped_;
    } else if (place_ == Place::tensor && key_ != "dtype") {
      place_ = Place::numbers;
    } else {
      complain("a list");
      ++skipped_;
    }
    return go_on();
  }
  bool end_array() override {
    if (skipped_ > 0) {
      --skipped_;
    } else {
      place_ = Place::tensor;
    }
    return go_on();
  }
  bool key(std::string& key) override {
    if (skipped_ > 0) return true;
    if (place_ == Place::name) {
      name_ = key;
      if (!names_.insert(key).second) add("tensor ", in_quotes(key), " is described twice");
    } else {
      key_ = key;
      if (!keys_.insert(key).second) complain_twice();
    }
    return go_on();
  }
  bool parse_error(std::size_t,
                   const std::string&,
                   const nlohmann::detail::exception& error) override {
    std::string message = error.what();
    if (const auto end = message.find("] "); end != std::string::npos) message.erase(0, end + 2);
    add("the header is no valid JSON: ", message);
    return false;
  }

 private:
  enum class Place { start, name, metadata, tensor, numbers, end };

  template <class... Pieces>
  void add(const Pieces&... pieces) {
    problems_.add(pieces...);
  }
  bool go_on() const { return problems_.size() < kMaxProblems; }

  // A field of a tensor that the format does not name; the official reader ignores it.
  bool ignored() const {
    return place_ == Place::tensor && key_ != "dtype" && key_ != "shape" && key_ != "data_offsets";
  }
  bool value(const std::string& text) {
    if (skipped_ == 0 && !ignored()) complain(text);
    return go_on();
  }
  void complain_twice() {
    wrong_ = true;
    add(place_ == Place::metadata ? std::string(kMetadata) : "tensor " + in_quotes(name_), ": key ",
        in_quotes(key_), " is given twice");
  }
  void complain(const std::string& found) {
    switch (place_) {
      case Place::start:
      case Place::end:
        add("the header is ", found, "; expected an object {…}");
        break;
      case Place::name:
        add(in_quotes(name_), " is ", found,
            "; expected an object with dtype, shape and data_offsets");
        break;
      case Place::metadata:
        add(kMetadata, ": ", in_quotes(key_), " is ", found, "; expected a string");
        break;
      case Place::tensor:
        add("tensor ", in_quotes(name_), ": ", key_, " is ", found, "; expected ",
            key_ == "dtype" ? "a string" : "a list of numbers");
        break;
      case Place::numbers:
        add("tensor ", in_quotes(name_), ": ", key_, " holds ", found,
            "; expected whole numbers of at least 0");
        break;
    }
    wrong_ = true;
  }

  void finish_tensor() {
    if (wrong_) return;  // its problems are listed
    const std::string tensor = "tensor " + in_quotes(name_);
    std::string missing;
    for (const char* field : {"dtype", "shape", "data_offsets"}) {
      if (!keys_.contains(field)) missing += std::string(missing.empty() ? "" : ", ") + field;
    }
    if (!missing.empty()) return add(tensor, ": ", missing, " is missing");
    const SafetensorsDtype* dtype = find_safetensors_dtype(info_.dtype);
    if (dtype == nullptr) return add(tensor, ": dtype ", in_quotes(info_.dtype), " is not known");
    if (offsets_.size() != 2) {
      return add(tensor, ": data_offsets has ",
                 offsets_.size() > kMaxRank ? "too many" : std::to_string(offsets_.size()),
                 " numbers; expected 2");
    }
    if (offsets_[0] > offsets_[1]) {
      return add(tensor, ": data_offsets begin at ", offsets_[0], " and end before it at ",
                 offsets_[1]);
    }
    if (shape_.size() > kMaxRank) {
      return add(tensor, ": has more than ", kMaxRank, " dimensions");
    }
    // Zero-sized dimensions count as one here: LibTorch multiplies strides that way.
    constexpr auto kMaxBits = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
    std::uint64_t bits = static_cast<std::uint64_t>(dtype->bits);
    bool empty = false;
    for (const std::uint64_t size : shape_) {
      if (size > kMaxBits / bits)
        return add(tensor, ": shape ", shape_text(), " is too large for any file");
      bits *= std::max<std::uint64_t>(size, 1);
      empty = empty || size == 0;
    }
    if (empty) bits = 0;
    info_.begin = offsets_[0];
    info_.end = offsets_[1];
    if (bits % 8 != 0) {
      return add(tensor, ": shape ", shape_text(), " of ", info_.dtype,
                 " is no whole number of bytes");
    }
    if (bits / 8 != info_.nbytes()) {
      return add(tensor, ": shape ", shape_text(), " of ", info_.dtype, " takes ", bits / 8,
                 " bytes, but data_offsets [", info_.begin, ", ", info_.end, "] hold ",
                 info_.nbytes());
    }
    info_.shape.assign(shape_.begin(), shape_.end());
    header_.tensors.emplace_back(name_, info_);
  }

  std::string shape_text() const {
    std::string text = "[";
    for (std::size_t i = 0; i < shape_.size(); ++i)
      text += (i ? ", " : "") + std::to_string(shape_[i]);
    return text + "]";
  }

  SafetensorsHeader& header_;
  Problems& problems_;
  std::set<std::string> names_;
  Place place_ = Place::start;
  std::size_t skipped_ = 0;  // open brackets of a value that is passed over
  std::string name_;         // of the tensor
  std::string key_;          // in the tensor or the metadata
  std::set<std::string> keys_;
  TensorInfo info_;
  std::vector<std::uint64_t> shape_;
  std::vector<std::uint64_t> offsets_;
  bool wrong_ = false;
};

// Sorted tensors must cover [0, data_bytes) one after the other.
void check_coverage(const SafetensorsHeader& header, std::uint64_t data_bytes, Problems& problems) {
  std::uint64_t described = 0;
  for (const auto& [name, info] : header.tensors) described = std::max(described, info.end);
  if (described > data_bytes) {
    problems.add("the header describes ", described, " bytes of tensors, the file holds ",
                 data_bytes, " behind the header: it was cut short, or the header is wrong");
    return;
  }
  std::uint64_t covered = 0;
  const std::string* before = nullptr;
  for (const auto& [name, info] : header.tensors) {
    if (info.begin != covered) {
      const bool overlap = info.begin < covered;
      const std::uint64_t count = overlap ? covered - info.begin : info.begin - covered;
      problems.add("tensor ", in_quotes(name), " begins at byte ", info.begin, ", but ",
                   before == nullptr ? std::string("the data begin") : in_quotes(*before) + " ends",
                   " at ", covered, ": ", count,
                   overlap ? " bytes overlap" : " bytes belong to no tensor");
      if (problems.size() >= kMaxProblems) return;
    }
    covered = std::max(covered, info.end);
    before = &name;
  }
  if (covered != data_bytes) {
    problems.add(data_bytes - covered, " bytes behind the last tensor belong to no tensor");
  }
}

}  // namespace

SafetensorsHeader parse_safetensors_header(std::string_view text,
                                           std::uint64_t data_bytes,
                                           const std::string& subject) {
  Problems problems(kOp, subject);
  SafetensorsHeader header;
  if (!text.starts_with('{')) {
    problems.add("the header does not begin with '{': this is no safetensors file");
    problems.throw_if_any();
  }
  HeaderHandler handler(header, problems);
  json::sax_parse(text.begin(), text.end(), &handler);
  std::sort(header.tensors.begin(), header.tensors.end(), [](const auto& a, const auto& b) {
    return std::tie(a.second.begin, a.second.end, a.first) <
           std::tie(b.second.begin, b.second.end, b.first);
  });
  // Gaps around a tensor that is already reported would say nothing new.
  if (problems.empty()) check_coverage(header, data_bytes, problems);
  problems.throw_if_any();
  return header;
}

}  // namespace lorapp::detail
