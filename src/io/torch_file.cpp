// Reading torch.save's archives with LibTorch's zip reader, and the bytes of their tensors.
#include "io/torch_file.hpp"

#include "io/file_map.hpp"
#include "json_file.hpp"
#include "torch_flags.hpp"

#include <lorapp/error.hpp>

#include <ATen/ops/empty.h>
#include <caffe2/serialize/inline_container.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>

namespace lorapp::detail {

namespace {

constexpr std::uint64_t kMaxByteorderBytes = 16;

// LibTorch's messages go on with its own call stack.
std::string first_line(const std::exception& error) {
  const std::string text = error.what();
  return text.substr(0, text.find('\n'));
}

}  // namespace

struct TorchFile::State {
  std::string path;
  std::string op;
  std::uint64_t bytes = 0;
  std::unique_ptr<caffe2::serialize::PyTorchStreamReader> archive;
  std::deque<TorchValue> values;
  const TorchValue* root = nullptr;

  // LibTorch's reader throws what it has not foreseen as well.
  bool has(const std::string& name) const {
    try {
      return archive->hasRecord(name);
    } catch (const std::exception& error) {
      detail::fail(op, path + ": cannot look for " + in_quotes(name) + ": " + first_line(error));
    }
  }

  // The bytes of a record, at most `most` of them.
  std::pair<at::DataPtr, std::size_t> record(const std::string& name, std::uint64_t most) const {
    LORAPP_CHECK(has(name), op, path, ": the archive has no ", in_quotes(name));
    try {
      // What an archive says of a size is checked before it is allocated.
      const std::uint64_t size = archive->getRecordSize(name);
      LORAPP_CHECK(size <= std::min(most, bytes), op, path, ": ", in_quotes(name), " would have ",
                   size, " bytes; expected at most ", std::min(most, bytes));
      auto [data, count] = archive->getRecord(name);
      return {std::move(data), count};
    } catch (const Error&) {
      throw;
    } catch (const std::exception& error) {
      detail::fail(op, path + ": cannot read " + in_quotes(name) + ": " + first_line(error));
    }
  }
};

TorchFile::TorchFile(std::unique_ptr<State> state) : state_(std::move(state)) {}
TorchFile::TorchFile(TorchFile&&) noexcept = default;
TorchFile::~TorchFile() = default;

TorchFile TorchFile::open(const std::filesystem::path& path, std::string op) {
  repair_torch_flags();  // the reader's checks of the archive must throw
  auto state = std::make_unique<State>();
  state->path = path.string();
  state->op = std::move(op);
  const InputFile file(path, state->op);
  state->bytes = file.size();
  std::array<char, 4> head{};
  if (state->bytes >= head.size()) file.read(0, head.data(), head.size());
  LORAPP_CHECK(std::string_view(head.data(), head.size()) == std::string_view("PK\x03\x04", 4),
               state->op, state->path, " is no zip archive, as torch.save writes them");
  try {
    state->archive = std::make_unique<caffe2::serialize::PyTorchStreamReader>(state->path);
  } catch (const std::exception& error) {
    detail::fail(state->op,
                 state->path + " is cut short or no archive of torch.save: " + first_line(error));
  }
  const auto text = [](const std::pair<at::DataPtr, std::size_t>& record) {
    return std::string_view(static_cast<const char*>(record.first.get()), record.second);
  };
  if (state->has("byteorder")) {
    const auto order = state->record("byteorder", kMaxByteorderBytes);
    LORAPP_CHECK(text(order) == "little", state->op, state->path, " was written in the byte order ",
                 in_quotes(std::string(text(order))), "; expected \"little\"");
  }
  const auto pickle = state->record("data.pkl", kMaxPickleBytes);
  state->root = unpickle(text(pickle), state->op, state->path + ": data.pkl", state->values);
  return TorchFile(std::move(state));
}

const TorchValue& TorchFile::root() const { return *state_->root; }

torch::Tensor TorchFile::read(const TorchTensor& tensor) const {
  const auto fail_with = [&](const auto&... pieces) {
    detail::fail(state_->op, concat(state_->path, ": a tensor ", torch::IntArrayRef(tensor.sizes),
                                    " ", pieces...));
  };
  const auto [data, bytes] = state_->record(tensor.record, state_->bytes);
  const std::size_t item = c10::elementSize(tensor.dtype);
  const auto available = static_cast<std::int64_t>(bytes / item);
  if (tensor.storage_size > available) {
    fail_with("needs ", tensor.storage_size, " elements, and ", in_quotes(tensor.record), " has ",
              available);
  }
  std::int64_t count = 1;
  for (std::size_t i = tensor.sizes.size(); i-- > 0;) {
    const std::int64_t size = tensor.sizes[i];
    if (size > 1 && tensor.strides[i] != count) fail_with("is not contiguous");
    if (size == 0 || count > available / size) fail_with("is empty or larger than its storage");
    count *= size;
  }
  if (tensor.offset > tensor.storage_size - count) fail_with("ends behind its storage");
  torch::Tensor values = at::empty(tensor.sizes, torch::TensorOptions().dtype(tensor.dtype));
  std::memcpy(values.mutable_data_ptr(),
              static_cast<const char*>(data.get()) + static_cast<std::size_t>(tensor.offset) * item,
              static_cast<std::size_t>(count) * item);
  return values;
}

}  // namespace lorapp::detail
