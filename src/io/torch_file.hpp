// Files of torch.save: a zip archive with a pickle of plain values and the bytes of its tensors.
// Nothing of a file is ever executed: what is no plain value or tensor is an Error by its name.
#pragma once

#include <lorapp/export.hpp>

#include <c10/core/ScalarType.h>
#include <torch/types.h>

#include <cstdint>
#include <deque>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace lorapp::detail {

/// A larger pickle is refused unread: the state of ten thousand parameters takes a tenth of it.
inline constexpr std::size_t kMaxPickleBytes = std::size_t{32} << 20;

struct TorchValue;

/// One tensor of a file, whose bytes are read by TorchFile::read.
struct TorchTensor {
  std::string record;  ///< of its storage
  c10::ScalarType dtype = c10::ScalarType::Undefined;
  std::int64_t storage_size = 0;  ///< elements of the storage
  std::int64_t offset = 0;        ///< of the first element
  std::vector<std::int64_t> sizes;
  std::vector<std::int64_t> strides;
};

/// A name that a pickle would have Python look up, e.g. "torch FloatStorage".
struct TorchGlobal {
  std::string name;
};

/// Lists and tuples.
using TorchItems = std::vector<const TorchValue*>;
using TorchDict = std::vector<std::pair<const TorchValue*, const TorchValue*>>;

/// One value. Values may be shared, and lie in the file's memory.
struct TorchValue {
  // A monostate is None; a unique_ptr keeps the small kinds small.
  std::variant<std::monostate,
               bool,
               std::int64_t,
               double,
               std::string,
               TorchItems,
               TorchDict,
               TorchGlobal,
               std::unique_ptr<TorchTensor>>
      value;

  template <class T>
  const T* as() const {
    return std::get_if<T>(&value);
  }
  LORAPP_API const TorchTensor* tensor() const;
  /// The entry of a dict; null if this is none, or has no such key.
  LORAPP_API const TorchValue* find(std::string_view key) const;
  LORAPP_API const TorchValue* find(std::int64_t key) const;
  /// What an error message calls it: "None", "3", "a list of 2", "a tensor [3, 4] of float32".
  LORAPP_API std::string describe() const;
};

/// Reads a pickle of protocol 2 to 4, as far as torch.save needs it for such values, into `values`.
/// Anything else is an Error(op) that names `where` and the place.
LORAPP_API const TorchValue* unpickle(std::string_view bytes,
                                      std::string_view op,
                                      std::string where,
                                      std::deque<TorchValue>& values);

/// A file of torch.save, opened for reading.
class LORAPP_API TorchFile {
 public:
  /// Reads the pickle. A file that is no such archive, is cut short, too large, or holds anything
  /// but None, booleans, numbers, texts, lists, tuples, dicts and tensors is an Error(op).
  static TorchFile open(const std::filesystem::path& path, std::string op);
  TorchFile(TorchFile&&) noexcept;
  ~TorchFile();

  const TorchValue& root() const;
  /// A tensor's values, on the CPU. Error if it reaches beyond its storage or the file, or is not
  /// contiguous.
  torch::Tensor read(const TorchTensor& tensor) const;

 private:
  struct State;
  explicit TorchFile(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// Builds a file that torch.load(path, weights_only=True) reads. Values are given depth first:
/// begin_dict(), then key and value in turn, end_dict().
class LORAPP_API TorchWriter {
 public:
  TorchWriter();

  void begin_dict();
  void end_dict();
  void begin_list();
  void end_list();
  void begin_tuple();
  void end_tuple();
  void none();
  void boolean(bool value);
  void integer(std::int64_t value);
  void number(double value);
  void text(std::string_view value);
  /// A contiguous CPU tensor of float32 or bytes, which write() reads.
  void tensor(const torch::Tensor& value);

  /// Writes the file, whole or not at all. Error beyond 4 GiB, which need another kind of archive.
  void write(const std::filesystem::path& path, std::string_view op) const;

 private:
  void byte(unsigned value);
  void little_endian(std::uint64_t value, int bytes);

  std::string pickle_;
  std::vector<torch::Tensor> tensors_;
};

}  // namespace lorapp::detail
