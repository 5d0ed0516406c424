// Model folders: which files hold the weights, and whether index and shards agree.
#include "json_file.hpp"

#include <lorapp/error.hpp>
#include <lorapp/io/checkpoint.hpp>

#include <algorithm>
#include <set>
#include <system_error>

namespace lorapp {

namespace fs = std::filesystem;

namespace {

constexpr const char* kOp = "checkpoint";
constexpr const char* kPickleNames[] = {"pytorch_model.bin", "pytorch_model.bin.index.json"};

// The names in a folder, for a message about what is not among them.
std::string listing(const fs::path& folder) {
  constexpr std::size_t kMaxNames = 12;
  std::set<std::string> names;
  std::error_code error;
  for (auto it = fs::directory_iterator(folder, error); !error && it != fs::directory_iterator();
       it.increment(error)) {
    names.insert(it->path().filename().string());
  }
  if (names.empty()) return "nothing";
  std::string text;
  std::size_t count = 0;
  for (const std::string& name : names) {
    if (count++ == kMaxNames) return text + ", … (" + std::to_string(names.size()) + " files)";
    text += (text.empty() ? "" : ", ") + name;
  }
  return text;
}

// The file of a model folder that says where the weights are.
fs::path find_weights(const fs::path& folder) {
  std::error_code ignored;
  for (const char* name : {kWeightsName, kWeightsIndexName}) {
    if (fs::exists(folder / name, ignored)) return folder / name;
  }
  for (const char* name : kPickleNames) {
    LORAPP_CHECK(
        !fs::exists(folder / name, ignored), kOp, folder.string(), ": has its weights in ", name,
        " only, a Python pickle, which can run code when it is read and is not supported. Convert "
        "it "
        "once in Python: AutoModelForCausalLM.from_pretrained(dir).save_pretrained(new_dir)");
  }
  detail::fail(kOp, folder.string() + ": has no weights; expected " + kWeightsName + " or " +
                        kWeightsIndexName + ", found " + listing(folder));
}

// A shard lies beside its index; anything else in its name could lead out of the folder.
bool is_plain_file_name(const std::string& name) {
  return !name.empty() && name.find_first_of("/\\") == std::string::npos &&
         name.find('\0') == std::string::npos && name != "." && name != ".." &&
         name.ends_with(".safetensors");
}

// tensor name → shard name
using WeightMap = std::map<std::string, std::string>;

WeightMap read_index(const fs::path& path) {
  const nlohmann::json index = detail::read_json_object(path, kOp);
  Problems problems(kOp, path.string());
  const nlohmann::json* entries = detail::find_object(index, "weight_map", problems);
  if (entries == nullptr && problems.empty()) {
    problems.add("weight_map is missing; expected an object {tensor: shard file}");
  }
  problems.throw_if_any();

  WeightMap weight_map;
  std::set<std::string> wrong_names;
  for (const auto& [tensor, shard] : entries->items()) {
    if (!shard.is_string()) {
      problems.add("weight_map: ", detail::in_quotes(tensor), " is ", detail::describe(shard),
                   "; expected the name of a file");
    } else if (const auto& name = shard.get_ref<const std::string&>(); !is_plain_file_name(name)) {
      if (wrong_names.insert(name).second) {
        problems.add(
            "weight_map: ", detail::describe(shard),
            " is not allowed; expected the name of a .safetensors file in the same folder");
      }
    } else {
      weight_map.emplace(tensor, name);
    }
  }
  problems.throw_if_any();
  LORAPP_CHECK(!weight_map.empty(), kOp, path.string(), ": weight_map is empty");
  return weight_map;
}

// An Error's text without "[op] ".
std::string bare(const Error& error) {
  return std::string(error.what()).substr(error.op().size() + 3);
}

}  // namespace

Checkpoint Checkpoint::open(const fs::path& path) {
  std::error_code ignored;
  LORAPP_CHECK(fs::exists(path, ignored), kOp, path.string(), ": no such file or folder");
  const fs::path weights = fs::is_directory(path, ignored) ? find_weights(path) : path;

  Checkpoint checkpoint;
  checkpoint.path_ = path;
  if (weights.extension() == ".safetensors") {
    checkpoint.files_.push_back(SafetensorsFile::open(weights));
    for (const auto& name : checkpoint.files_.front().names())
      checkpoint.file_index_.emplace(name, 0);
    return checkpoint;
  }
  LORAPP_CHECK(weights.extension() == ".json", kOp, weights.string(),
               ": expected a model folder, a .safetensors file or a .safetensors.index.json file");

  const WeightMap weight_map = read_index(weights);
  std::map<std::string, std::vector<std::string>> tensors_of;
  for (const auto& [tensor, shard] : weight_map) tensors_of[shard].push_back(tensor);

  Problems problems(kOp, weights.string());
  for (const auto& [shard, tensors] : tensors_of) {
    const fs::path shard_path = weights.parent_path() / shard;
    if (!fs::exists(shard_path, ignored)) {
      problems.add("shard ", shard, " is missing (", tensors.size(), " tensors, the first is ",
                   detail::in_quotes(tensors.front()), ")");
      continue;
    }
    try {
      checkpoint.files_.push_back(SafetensorsFile::open(shard_path));
    } catch (const Error& error) {
      problems.add(bare(error));
      continue;
    }
    const SafetensorsFile& file = checkpoint.files_.back();
    for (const auto& tensor : tensors) {
      if (file.contains(tensor)) {
        checkpoint.file_index_.emplace(tensor, checkpoint.files_.size() - 1);
      } else {
        problems.add("tensor ", detail::in_quotes(tensor), " should be in ", shard,
                     ", which does not have it");
      }
    }
    for (const auto& tensor : file.names()) {
      const auto it = weight_map.find(tensor);
      if (it == weight_map.end()) {
        problems.add("tensor ", detail::in_quotes(tensor), " of ", shard, " is not in the index");
      } else if (it->second != shard) {
        problems.add("tensor ", detail::in_quotes(tensor), " is in ", shard,
                     ", but the index says ", it->second);
      }
    }
  }
  problems.throw_if_any();
  return checkpoint;
}

std::vector<std::string> Checkpoint::names() const {
  std::vector<std::string> names;
  for (const auto& file : files_) {
    for (auto& name : file.names()) names.push_back(std::move(name));
  }
  return names;
}

bool Checkpoint::contains(const std::string& name) const { return file_index_.contains(name); }

const SafetensorsFile& Checkpoint::file_of(const std::string& name) const {
  const auto it = file_index_.find(name);
  LORAPP_CHECK(it != file_index_.end(), kOp, path_.string(), ": has no tensor ",
               detail::in_quotes(name), " among its ", file_index_.size());
  return files_[it->second];
}

const TensorInfo& Checkpoint::info(const std::string& name) const {
  return file_of(name).info(name);
}
torch::Tensor Checkpoint::view(const std::string& name) const { return file_of(name).view(name); }
void Checkpoint::release(const std::string& name) const { file_of(name).release(name); }

std::vector<fs::path> Checkpoint::files() const {
  std::vector<fs::path> paths;
  for (const auto& file : files_) paths.push_back(file.path());
  return paths;
}

}  // namespace lorapp
