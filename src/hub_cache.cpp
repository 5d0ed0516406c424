// Look-ups in the cache of the Hugging Face hub, by the rules of huggingface_hub.
#include "hub_cache.hpp"

#include <lorapp/error.hpp>

#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace lorapp::detail {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t kMaxIdLength = 96;
constexpr std::size_t kMaxNameLength = 255;  // of a file, on every file system in use
constexpr std::size_t kMaxPathLength = 1024;
constexpr std::size_t kMaxTokenBytes = 4096;
constexpr std::size_t kMaxRefBytes = 256;

bool is_letter_or_digit(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

std::string trimmed(std::string text) {
  const auto space = [](char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; };
  text.erase(std::find_if_not(text.rbegin(), text.rend(), space).base(), text.end());
  text.erase(text.begin(), std::ranges::find_if_not(text, space));
  return text;
}

/// The first bytes of a small file, without white space at the ends; empty where it cannot be read.
std::string small_file(const fs::path& path, std::size_t max_bytes) {
  std::error_code error;
  if (!fs::is_regular_file(path, error)) return {};
  std::ifstream file(path, std::ios::binary);
  std::string text(max_bytes, '\0');
  file.read(text.data(), static_cast<std::streamsize>(max_bytes));
  text.resize(static_cast<std::size_t>(file.gcount()));
  return trimmed(std::move(text));
}

fs::path user_home() {
  if (const std::string home = environment("HOME"); !home.empty()) return home;
  passwd entry = {};
  passwd* found = nullptr;
  std::vector<char> buffer(1 << 14);
  if (::getpwuid_r(::getuid(), &entry, buffer.data(), buffer.size(), &found) == 0 &&
      found != nullptr && found->pw_dir != nullptr) {
    return found->pw_dir;
  }
  return {};
}

/// `text` with $NAME and ${NAME} replaced by what is set, and left as they are where nothing is.
std::string with_variables(std::string_view text) {
  const auto in_name = [](char c) { return is_letter_or_digit(c) || c == '_'; };
  std::string result;
  while (!text.empty()) {
    std::size_t length = 1;
    std::string name;
    if (text.starts_with("${")) {
      if (const std::size_t end = text.find('}'); end != std::string_view::npos) {
        name = text.substr(2, end - 2);
        length = end + 1;
      }
    } else if (text.front() == '$') {
      while (length < text.size() && in_name(text[length])) ++length;
      name = text.substr(1, length - 1);
    }
    const char* value = name.empty() ? nullptr : std::getenv(name.c_str());
    result += value != nullptr ? std::string_view(value) : text.substr(0, length);
    text.remove_prefix(length);
  }
  return result;
}

/// A path from the environment; empty where the variable is not set.
fs::path variable_path(const char* name) {
  std::string text = environment(name);
  if (text == "~" || text.starts_with("~/")) text = user_home().string() + text.substr(1);
  return with_variables(text);
}

bool is_file_name(std::string_view part) {
  return !part.empty() && part != "." && part != ".." && part.size() <= kMaxNameLength &&
         std::ranges::none_of(part, [](char c) {
           return static_cast<unsigned char>(c) < 0x20 || c == 0x7f || c == '/';
         });
}

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

/// Where main was never fetched, as after a download by commit hash: the only snapshot there is.
HubLookup only_snapshot(const fs::path& snapshots, std::string_view file) {
  std::vector<std::string> complete;
  std::error_code error;
  std::error_code ignored;
  for (auto snapshot = fs::directory_iterator(snapshots, error);
       !error && snapshot != fs::directory_iterator(); snapshot.increment(error)) {
    if (fs::exists(snapshot->path() / file, ignored)) {
      complete.push_back(snapshot->path().filename().string());
    }
  }
  std::ranges::sort(complete);
  if (complete.size() == 1) return {.snapshot = snapshots / complete.front()};
  if (complete.empty()) return {.problem = "no snapshot there holds " + std::string(file)};
  return {.problem = "refs/main is not there, and several snapshots are: " + joined(complete) +
                     "; expected one of them behind the name, as in name@commit"};
}

}  // namespace

std::string environment(const char* name) {
  const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): read only
  return value == nullptr ? std::string{} : std::string(value);
}

bool environment_flag(const char* name) {
  std::string value = environment(name);
  for (char& c : value) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return value == "1" || value == "ON" || value == "YES" || value == "TRUE";
}

fs::path hub_home() {
  if (fs::path home = variable_path("HF_HOME"); !home.empty()) return home;
  fs::path user_cache = variable_path("XDG_CACHE_HOME");
  if (user_cache.empty()) user_cache = user_home() / ".cache";
  return user_cache / "huggingface";
}

fs::path hub_cache() {
  for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}) {
    if (fs::path cache = variable_path(name); !cache.empty()) return cache;
  }
  return hub_home() / "hub";
}

std::string hub_token() {
  if (environment_flag("HF_HUB_DISABLE_IMPLICIT_TOKEN")) return {};
  for (const char* name : {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"}) {
    if (std::string token = trimmed(environment(name)); !token.empty()) return token;
  }
  const fs::path file = variable_path("HF_TOKEN_PATH");
  return small_file(file.empty() ? hub_home() / "token" : file, kMaxTokenBytes);
}

bool is_hub_id(std::string_view id) {
  const auto allowed = [](char c) {
    return is_letter_or_digit(c) || c == '-' || c == '_' || c == '.' || c == '/';
  };
  if (!std::ranges::all_of(id, allowed)) return false;
  if (id.find("--") != id.npos || id.find("..") != id.npos || id.ends_with(".git")) return false;
  const auto is_end = [](char c) { return is_letter_or_digit(c) || c == '_'; };
  const std::size_t slash = id.find('/');
  const std::string_view name = slash == id.npos ? id : id.substr(slash + 1);
  const std::string_view owner = slash == id.npos ? name : id.substr(0, slash);
  const auto is_part = [&](std::string_view part) {
    return !part.empty() && part.size() <= kMaxIdLength && is_end(part.front()) &&
           is_end(part.back());
  };
  return name.find('/') == name.npos && is_part(owner) && is_part(name);
}

bool is_safe_relative_path(std::string_view path) {
  for (std::size_t begin = 0; begin <= path.size();) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    if (!is_file_name(path.substr(begin, end - begin))) return false;
    begin = end + 1;
  }
  return path.size() <= kMaxPathLength;
}

bool is_hub_revision(std::string_view revision) {
  return revision.size() <= kMaxNameLength && is_safe_relative_path(revision);
}

bool is_commit_hash(std::string_view text) {
  return text.size() == 40 && std::ranges::all_of(text, [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

fs::path hub_repository(std::string_view kind, std::string_view id) {
  std::string folder(kind);
  folder += "--";
  for (const char c : id) folder += c == '/' ? std::string("--") : std::string(1, c);
  return hub_cache() / folder;
}

HubLookup find_hub_snapshot(const fs::path& repository,
                            std::string_view file,
                            std::string_view revision) {
  const fs::path snapshots = repository / "snapshots";
  const std::string name(revision.empty() ? "main" : revision);
  if (!is_hub_revision(name)) return {.problem = "\"" + name + "\" is not a revision"};
  std::error_code error;
  std::string commit = name;
  if (!is_commit_hash(name)) {
    const fs::path ref = repository / "refs" / name;
    if (!fs::exists(ref, error)) {
      return revision.empty() ? only_snapshot(snapshots, file)
                              : HubLookup{.problem = "refs/" + name + " is not there"};
    }
    commit = small_file(ref, kMaxRefBytes);
    if (!is_file_name(commit)) return {.problem = "refs/" + name + " holds no commit"};
  }
  const std::string wanted(file);
  if (fs::exists(snapshots / commit / wanted, error)) return {.snapshot = snapshots / commit};
  if (fs::exists(repository / ".no_exist" / commit / wanted, error)) {
    return {.problem = "commit " + commit + " of the repository has no " + wanted};
  }
  return {.problem = "snapshot " + commit + " (" + name + ") holds no " + wanted};
}

}  // namespace lorapp::detail
