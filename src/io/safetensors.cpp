// Reading by mapping single tensors, and the writer.
#include "atomic_file.hpp"
#include "io/dtypes.hpp"
#include "io/file_map.hpp"
#include "io/safetensors_header.hpp"
#include "json_file.hpp"

#include <lorapp/error.hpp>
#include <lorapp/io/dtype.hpp>
#include <lorapp/io/safetensors.hpp>

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <mutex>
#include <set>
#include <unordered_map>

namespace lorapp {

static_assert(std::endian::native == std::endian::little, "safetensors data are little-endian");

namespace {

constexpr const char* kOp = "safetensors";
constexpr std::uint64_t kLengthBytes = 8;
constexpr std::size_t kHeaderAlignment = 8;

}  // namespace

struct SafetensorsFile::State {
  State(const std::filesystem::path& path) : file(path, kOp) {}

  detail::InputFile file;
  std::uint64_t data_begin = 0;
  std::map<std::string, std::string> metadata;
  std::vector<std::string> names;
  std::unordered_map<std::string, TensorInfo> infos;

  // Views of one tensor share a mapping while any of them lives.
  std::mutex mutex;
  std::unordered_map<std::string, std::weak_ptr<const detail::FileMap>> maps;

  std::shared_ptr<const detail::FileMap> map(const std::string& name, const TensorInfo& info) {
    const std::lock_guard lock(mutex);
    auto& slot = maps[name];
    auto mapped = slot.lock();
    if (!mapped) {
      mapped =
          std::make_shared<const detail::FileMap>(file, data_begin + info.begin, info.nbytes());
      slot = mapped;
    }
    return mapped;
  }
};

SafetensorsFile::SafetensorsFile(std::shared_ptr<State> state) : state_(std::move(state)) {}

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  auto state = std::make_shared<State>(path);
  const std::uint64_t size = state->file.size();
  LORAPP_CHECK(size >= kLengthBytes, kOp, path.string(), ": has ", size,
               " bytes; a safetensors file begins with 8 bytes that hold the length of its header");
  std::uint64_t header_bytes = 0;
  state->file.read(0, &header_bytes, kLengthBytes);
  LORAPP_CHECK(header_bytes <= size - kLengthBytes, kOp, path.string(), ": claims a header of ",
               header_bytes, " bytes, but only ", size - kLengthBytes,
               " follow: the file was cut short, or is no safetensors file");
  LORAPP_CHECK(header_bytes <= detail::kMaxSafetensorsHeaderBytes, kOp, path.string(),
               ": claims a header of ", header_bytes, " bytes; at most ",
               detail::kMaxSafetensorsHeaderBytes, " are allowed");
  std::string text(header_bytes, '\0');
  state->file.read(kLengthBytes, text.data(), text.size());

  state->data_begin = kLengthBytes + header_bytes;
  auto header = detail::parse_safetensors_header(text, size - state->data_begin, path.string());
  state->metadata = std::move(header.metadata);
  state->names.reserve(header.tensors.size());
  for (auto& [name, info] : header.tensors) {
    state->names.push_back(name);
    state->infos.emplace(std::move(name), std::move(info));
  }
  return SafetensorsFile(std::move(state));
}

const std::filesystem::path& SafetensorsFile::path() const { return state_->file.path(); }

const std::map<std::string, std::string>& SafetensorsFile::metadata() const {
  return state_->metadata;
}

std::vector<std::string> SafetensorsFile::names() const { return state_->names; }

bool SafetensorsFile::contains(const std::string& name) const {
  return state_->infos.contains(name);
}

const TensorInfo& SafetensorsFile::info(const std::string& name) const {
  const auto it = state_->infos.find(name);
  LORAPP_CHECK(it != state_->infos.end(), kOp, path().string(), ": has no tensor ",
               detail::in_quotes(name), " among its ", state_->names.size());
  return it->second;
}

torch::Tensor SafetensorsFile::view(const std::string& name) const {
  const TensorInfo& entry = info(name);
  const auto* dtype = detail::find_safetensors_dtype(entry.dtype);
  LORAPP_CHECK(dtype->torch.has_value(), kOp, path().string(), ": tensor ", detail::in_quotes(name),
               " is of type ", entry.dtype, ", elements of ", dtype->bits,
               " bits, for which LibTorch has no type; it can be listed, but not used");
  const auto options = torch::TensorOptions().dtype(*dtype->torch);
  if (entry.nbytes() == 0) return at::empty(entry.shape, options);

  auto mapped = state_->map(name, entry);
  const std::size_t alignment = c10::elementSize(*dtype->torch);
  if (reinterpret_cast<std::uintptr_t>(mapped->data()) % alignment != 0) {
    torch::Tensor copy = at::empty(entry.shape, options);
    std::memcpy(copy.mutable_data_ptr(), mapped->data(), entry.nbytes());
    return copy;
  }
  // from_blob wants a mutable pointer; the pages themselves are mapped read-only.
  void* data = const_cast<std::byte*>(mapped->data());
  return at::from_blob(
      data, entry.shape, [mapped](void*) {}, options);
}

void SafetensorsFile::release(const std::string& name) const {
  info(name);  // a wrong name is an error here as everywhere
  const std::lock_guard lock(state_->mutex);
  const auto it = state_->maps.find(name);
  if (it == state_->maps.end()) return;
  if (const auto mapped = it->second.lock()) mapped->drop_pages();
}

namespace {

// Ready to be written: on the CPU, without gaps, conjugation or negation left to do.
torch::Tensor plain(const torch::Tensor& tensor) {
  return tensor.detach().to(torch::kCPU).resolve_conj().resolve_neg().contiguous();
}

std::uint64_t nbytes_of(const torch::Tensor& tensor) {
  return static_cast<std::uint64_t>(tensor.numel()) * tensor.element_size();
}

void check_tensors(const std::filesystem::path& path, const NamedTensors& tensors) {
  Problems problems(kOp, path.string() + ": cannot be written");
  std::set<std::string> names;
  for (const auto& [name, tensor] : tensors) {
    if (!names.insert(name).second)
      problems.add("tensor ", detail::in_quotes(name), " is given twice");
    if (name == "__metadata__") problems.add("__metadata__ cannot be the name of a tensor");
    if (!tensor.defined()) {
      problems.add("tensor ", detail::in_quotes(name), " is not defined");
    } else if (tensor.layout() != torch::kStrided) {
      problems.add("tensor ", detail::in_quotes(name), " is not dense");
    } else if (detail::find_safetensors_dtype(tensor.scalar_type()) == nullptr) {
      problems.add("tensor ", detail::in_quotes(name), " is of type ",
                   c10::toString(tensor.scalar_type()), ", which the format does not have");
    }
  }
  problems.throw_if_any();
}

}  // namespace

void write_safetensors(const std::filesystem::path& path,
                       const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata) {
  check_tensors(path, tensors);
  std::vector<const NamedTensors::value_type*> order;
  for (const auto& entry : tensors) order.push_back(&entry);
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    // Pointers into one table: the later entry is the larger type.
    const auto* dtype_a = detail::find_safetensors_dtype(a->second.scalar_type());
    const auto* dtype_b = detail::find_safetensors_dtype(b->second.scalar_type());
    return dtype_a != dtype_b ? dtype_a > dtype_b : a->first < b->first;
  });

  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::uint64_t end = 0;
  for (const auto* entry : order) {
    const auto& [name, tensor] = *entry;
    const std::uint64_t begin = std::exchange(end, end + nbytes_of(tensor));
    header.push_back({name,
                      {{"dtype", safetensors_dtype_name(tensor.scalar_type())},
                       {"shape", tensor.sizes().vec()},
                       {"data_offsets", {begin, end}}}});
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const nlohmann::json::exception&) {
    detail::fail(kOp, path.string() + ": cannot be written: a name or metadata entry is not UTF-8");
  }
  text.resize((text.size() + kHeaderAlignment - 1) / kHeaderAlignment * kHeaderAlignment, ' ');
  LORAPP_CHECK(text.size() <= detail::kMaxSafetensorsHeaderBytes, kOp, path.string(),
               ": cannot be written: a header of ", text.size(), " bytes; at most ",
               detail::kMaxSafetensorsHeaderBytes, " are allowed");

  detail::AtomicFile file(path);
  const std::uint64_t length = text.size();
  file.write(&length, sizeof length);
  file.write(text);
  for (const auto* entry : order) {
    const torch::Tensor tensor = plain(entry->second);
    file.write(tensor.const_data_ptr(), nbytes_of(tensor));
  }
  file.commit();
}

}  // namespace lorapp
