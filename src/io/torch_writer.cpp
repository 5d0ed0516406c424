// Writing what torch.load reads: pickle protocol 2 in an archive of uncompressed records.
// The layout is torch.save's: data.pkl, byteorder, data/0, data/1, …, version, each aligned to 64
// bytes.
#include "atomic_file.hpp"
#include "io/torch_file.hpp"

#include <lorapp/error.hpp>

#include <array>
#include <bit>
#include <cstring>
#include <limits>

namespace lorapp::detail {

namespace {

static_assert(std::endian::native == std::endian::little, "records hold the bytes of this machine");

constexpr std::uint64_t kAlignment = 64;
constexpr unsigned kDosDate = 0x21;  // 1 January 1980: equal states give equal files

// The checksum of zip archives: the reflected polynomial of IEEE 802.3.
constexpr std::array<std::uint32_t, 256> crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) != 0 ? 0xEDB88320U : 0);
    table[i] = value;
  }
  return table;
}

std::uint32_t crc32(std::string_view bytes) {
  static constexpr auto kTable = crc_table();
  std::uint32_t crc = ~std::uint32_t{0};
  for (const char c : bytes) crc = (crc >> 8) ^ kTable[(crc ^ static_cast<unsigned char>(c)) & 255];
  return ~crc;
}

void append(std::string& text, std::uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) text += static_cast<char>(value >> (8 * i) & 255);
}

// A zip archive, written as its records come.
class ZipWriter {
 public:
  ZipWriter(const std::filesystem::path& path, std::string_view op)
      : file_(path), path_(path.string()), op_(op) {}

  void add(const std::string& record, std::string_view bytes) {
    const std::string name = "archive/" + record;
    check_size(bytes.size());
    // The fields that the local header and the directory share.
    std::string fields;
    append(fields, 20, 2);  // version 2.0 reads it
    append(fields, 0, 2);   // flags
    append(fields, 0, 2);   // stored
    append(fields, 0, 2);   // time
    append(fields, kDosDate, 2);
    append(fields, crc32(bytes), 4);
    append(fields, bytes.size(), 4);
    append(fields, bytes.size(), 4);
    append(fields, name.size(), 2);

    std::string header = "PK\x03\x04" + fields;
    std::uint64_t padding = kAlignment - (size_ + header.size() + 2 + name.size()) % kAlignment;
    if (padding < 4) padding += kAlignment;  // an extra field begins with four bytes
    append(header, padding, 2);
    header += name + "FB";
    append(header, padding - 4, 2);
    header.append(padding - 4, 'Z');

    directory_ += "PK\x01\x02";
    append(directory_, 20, 2);
    directory_ += fields;
    directory_.append(12, '\0');  // no extra field, comment, other disk or attributes
    append(directory_, size_, 4);
    directory_ += name;
    ++records_;
    put(header);
    put(bytes);
  }

  void finish() {
    LORAPP_CHECK(records_ <= std::numeric_limits<std::uint16_t>::max(), op_, path_, " would have ",
                 records_, " records; expected at most 65535");
    check_size(directory_.size());
    std::string end = "PK\x05\x06";
    append(end, 0, 4);
    append(end, records_, 2);
    append(end, records_, 2);
    append(end, directory_.size(), 4);
    append(end, size_, 4);
    append(end, 0, 2);
    put(directory_);
    put(end);
    file_.commit();
  }

 private:
  void check_size(std::uint64_t more) const {
    LORAPP_CHECK(size_ + more <= std::numeric_limits<std::uint32_t>::max() - (1U << 20), op_, path_,
                 " would be larger than 4 GiB, which this kind of archive cannot be");
  }
  void put(std::string_view bytes) {
    file_.write(bytes);
    size_ += bytes.size();
  }

  AtomicFile file_;
  std::string path_;
  std::string_view op_;
  std::string directory_;
  std::uint64_t size_ = 0;
  std::uint64_t records_ = 0;
};

}  // namespace

TorchWriter::TorchWriter() {
  byte(0x80);
  byte(2);
}

void TorchWriter::byte(unsigned value) { pickle_ += static_cast<char>(value); }
void TorchWriter::little_endian(std::uint64_t value, int bytes) { append(pickle_, value, bytes); }

void TorchWriter::begin_dict() { pickle_ += "}("; }
void TorchWriter::end_dict() { byte('u'); }
void TorchWriter::begin_list() { pickle_ += "]("; }
void TorchWriter::end_list() { byte('e'); }
void TorchWriter::begin_tuple() { byte('('); }
void TorchWriter::end_tuple() { byte('t'); }
void TorchWriter::none() { byte('N'); }
void TorchWriter::boolean(bool value) { byte(value ? 0x88 : 0x89); }

void TorchWriter::integer(std::int64_t value) {
  if (value >= std::numeric_limits<std::int32_t>::min() &&
      value <= std::numeric_limits<std::int32_t>::max()) {
    byte('J');
    little_endian(static_cast<std::uint64_t>(value), 4);
  } else {
    byte(0x8a);
    byte(8);
    little_endian(static_cast<std::uint64_t>(value), 8);
  }
}

void TorchWriter::number(double value) {
  const auto bits = std::bit_cast<std::uint64_t>(value);
  byte('G');
  for (int i = 7; i >= 0; --i) byte(static_cast<unsigned>(bits >> (8 * i) & 255));
}

void TorchWriter::text(std::string_view value) {
  byte('X');
  little_endian(value.size(), 4);
  pickle_ += value;
}

void TorchWriter::tensor(const torch::Tensor& value) {
  const bool bytes = value.scalar_type() == torch::kUInt8;
  LORAPP_CHECK(
      value.is_cpu() && value.is_contiguous() && (bytes || value.scalar_type() == torch::kFloat32),
      "torch_file", "a tensor ", value.sizes(), " of ", value.scalar_type(),
      " cannot be written; expected a contiguous one of float32 or bytes on the CPU");
  pickle_ += "ctorch._utils\n_rebuild_tensor_v2\n";
  begin_tuple();
  begin_tuple();
  text("storage");
  pickle_ += bytes ? "ctorch\nByteStorage\n" : "ctorch\nFloatStorage\n";
  text(std::to_string(tensors_.size()));
  text("cpu");
  integer(value.numel());
  end_tuple();
  byte('Q');
  integer(0);  // offset
  for (const torch::IntArrayRef numbers : {value.sizes(), value.strides()}) {
    begin_tuple();
    for (const std::int64_t number : numbers) integer(number);
    end_tuple();
  }
  boolean(false);                              // requires_grad
  pickle_ += "ccollections\nOrderedDict\n)R";  // hooks
  end_tuple();
  byte('R');
  tensors_.push_back(value);
}

void TorchWriter::write(const std::filesystem::path& path, std::string_view op) const {
  ZipWriter zip(path, op);
  zip.add("data.pkl", pickle_ + ".");
  zip.add("byteorder", "little");
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    zip.add("data/" + std::to_string(i),
            {static_cast<const char*>(tensors_[i].const_data_ptr()), tensors_[i].nbytes()});
  }
  zip.add("version", "3\n");
  zip.finish();
}

}  // namespace lorapp::detail
