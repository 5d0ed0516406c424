#include "nn/quant_cache.hpp"

#include <lorapp/error.hpp>
#include <lorapp/io/dtype.hpp>
#include <lorapp/nn/quantize_pretrained.hpp>

#include "io/sha.hpp"
#include "json_file.hpp"

#include <algorithm>
#include <ctime>
#include <string>
#include <system_error>
#include <utility>

#include <sys/stat.h>

namespace lorapp::detail {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view kOp = "quant_cache";
/// Part of every key: to be raised when quantize_pretrained writes other bytes.
constexpr int kCacheVersion = 1;
constexpr const char* kDigests = "digests.json";

bool is_sha256(const std::string& text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

/// Digests by path, with what tells whether a file is still the one that was read.
class Digests {
 public:
  explicit Digests(fs::path file) : file_(std::move(file)) {
    std::error_code error;
    if (!fs::exists(file_, error)) return;
    try {
      known_ = read_json_object(file_, kOp);
    } catch (const Error&) {
      known_ = nlohmann::json::object();  // what it would have saved is done again
    }
  }

  std::string of(const fs::path& path) {
    std::error_code error;
    const fs::path file = fs::canonical(path, error);
    LORAPP_CHECK(!error, kOp, path.string(), ": cannot be read: ", error.message());
    // In the Hugging Face cache a large file is called by its SHA-256.
    if (file.parent_path().filename() == "blobs" && is_sha256(file.filename().string())) {
      return file.filename().string();
    }
    const auto [state, seconds] = state_of(file);
    const auto found = known_.find(file.string());
    if (found != known_.end() && found->is_object() && found->value("state", "") == state) {
      const auto digest = found->find("sha256");
      if (digest != found->end() && digest->is_string() && is_sha256(*digest)) return *digest;
    }
    std::string digest = sha256_of_file(file, kOp);
    LORAPP_CHECK(state_of(file).first == state, kOp, file.string(), ": changed while it was read");
    // A file that is written twice within the clock's grain would look unchanged.
    if (seconds + 2 < std::time(nullptr)) {
      known_[file.string()] = {{"state", state}, {"sha256", digest}};
      changed_ = true;
    }
    return digest;
  }

  void save() const {
    if (changed_) write_json_file(file_, known_);
  }

 private:
  static std::pair<std::string, std::int64_t> state_of(const fs::path& file) {
    struct stat state {};
    LORAPP_CHECK(::stat(file.c_str(), &state) == 0, kOp, file.string(), ": cannot be read");
    return {concat(state.st_size, " ", state.st_mtim.tv_sec, ".", state.st_mtim.tv_nsec, " ",
                   state.st_dev, " ", state.st_ino),
            state.st_mtim.tv_sec};
  }

  fs::path file_;
  nlohmann::json known_ = nlohmann::json::object();
  bool changed_ = false;
};

std::string key_of(const ModelFolder& folder, const LoadOptions& options, Digests& digests) {
  const QuantConfig& quant = *options.quant_config;
  nlohmann::json key = {{"version", kCacheVersion},
                        {"config", digests.of(folder.dir / "config.json")},
                        {"quant_type", quant_type_name(quant.quant_type)},
                        {"blocksize", quant.blocksize},
                        {"use_double_quant", quant.use_double_quant},
                        {"skip_modules", quant.skip_modules},
                        {"dtype", options.dtype ? hf_dtype_name(*options.dtype) : "auto"},
                        {"files", nlohmann::json::array()}};
  for (const fs::path& file : folder.checkpoint.files()) key["files"].push_back(digests.of(file));
  Sha digest(Sha::Kind::sha256);
  digest.update(dump_json(key));
  return digest.hex_digest();
}

}  // namespace

fs::path cached_quantized_folder(const ModelFolder& folder, const LoadOptions& options) {
  const fs::path& cache = options.quant_cache;
  std::error_code error;
  fs::create_directories(cache, error);
  LORAPP_CHECK(!error, kOp, cache.string(), ": cannot be created: ", error.message());
  Digests digests(cache / kDigests);
  const fs::path copy = cache / key_of(folder, options, digests);
  digests.save();
  if (fs::exists(copy, error)) return copy;
  try {
    quantize_pretrained(folder.dir, copy,
                        {.quant_config = *options.quant_config, .dtype = options.dtype});
  } catch (const Error&) {
    // Another process may have made the same folder in the meantime: its bytes are the same.
    if (!fs::exists(copy / kWeightsName, error) && !fs::exists(copy / kWeightsIndexName, error)) {
      throw;
    }
  }
  return copy;
}

}  // namespace lorapp::detail
