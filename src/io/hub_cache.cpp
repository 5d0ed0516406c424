// The model folder behind a path or a hub id.
#include "hub_cache.hpp"

#include "json_file.hpp"

#include <lorapp/error.hpp>
#include <lorapp/io/hub_cache.hpp>
#include <lorapp/io/hub_download.hpp>

#include <nlohmann/json.hpp>

#include <string>

namespace lorapp {

namespace fs = std::filesystem;

namespace {

constexpr const char* kOp = "model_folder";

/// What to do about a model that is not in the cache.
std::string how_to_get(const std::string& name) {
  if (!hub_download_available()) {
    return "this lorapp was built without downloads (LORAPP_HUB); fetch the model with "
           "\"hf download\" of Python's huggingface_hub, or give a model folder";
  }
  if (hub_is_offline()) return "HF_HUB_OFFLINE forbids downloads; give a model folder";
  return "fetch the model with \"lorapp download " + name + "\", or give a model folder";
}

}  // namespace

std::optional<HubName> parse_hub_name(std::string_view text) {
  const std::size_t at = text.find('@');
  HubName name{.repo_id = std::string(text.substr(0, at))};
  if (!detail::is_hub_id(name.repo_id)) return {};
  if (at == text.npos) return name;
  name.revision = text.substr(at + 1);
  if (!detail::is_hub_revision(name.revision)) return {};
  return name;
}

fs::path resolve_model_folder(const std::string& name_or_path, std::string_view needed_file) {
  std::error_code error;
  const fs::file_status status = fs::status(name_or_path, error);
  if (fs::is_directory(status)) return name_or_path;
  LORAPP_CHECK(!fs::exists(status), kOp, name_or_path,
               ": is a file, expected a model folder or the id of a model on the hub");
  const auto name = parse_hub_name(name_or_path);
  LORAPP_CHECK(name.has_value(), kOp, name_or_path.empty() ? "\"\"" : name_or_path,
               ": no such folder");
  const fs::path repository = detail::hub_repository("models", name->repo_id);
  const detail::HubLookup found =
      detail::find_hub_snapshot(repository, needed_file, name->revision);
  if (found.snapshot) return *found.snapshot;
  detail::fail(
      kOp, detail::concat(name_or_path, ": no such folder, and no snapshot of that name with ",
                          needed_file, " in the local Hugging Face cache (", repository.string(),
                          ": ", fs::exists(repository, error) ? found.problem : "not there", "); ",
                          how_to_get(name_or_path)));
}

bool has_all_weights(const fs::path& folder) {
  std::error_code error;
  const fs::path index = folder / "model.safetensors.index.json";
  if (fs::exists(index, error)) {
    try {
      const nlohmann::json document = detail::read_json_object(index, kOp);
      const auto map = document.find("weight_map");
      if (map == document.end() || !map->is_object()) return true;
      for (const auto& [tensor, file] : map->items()) {
        if (file.is_string() && !fs::exists(folder / file.get<std::string>(), error)) return false;
      }
    } catch (const Error&) {  // whoever reads the weights says what is wrong with the index
    }
    return true;
  }
  for (auto file = fs::directory_iterator(folder, error);
       !error && file != fs::directory_iterator(); file.increment(error)) {
    const fs::path name = file->path().filename();
    std::error_code ignored;
    const bool weights = name.extension() == ".safetensors" || name == "pytorch_model.bin" ||
                         name == "pytorch_model.bin.index.json";
    if (weights && fs::exists(file->path(), ignored)) return true;
  }
  return false;
}

bool hub_is_offline() {
  return detail::environment_flag(
      detail::environment("HF_HUB_OFFLINE").empty() ? "TRANSFORMERS_OFFLINE" : "HF_HUB_OFFLINE");
}

}  // namespace lorapp
