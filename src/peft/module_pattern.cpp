// Matching of layer paths: names, regular expressions (std::regex stays in this file), layer
// numbers.
#include <lorapp/error.hpp>
#include <lorapp/peft/module_pattern.hpp>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <functional>
#include <regex>
#include <utility>

namespace lorapp {

namespace {

constexpr const char* kOp = "module_pattern";

// What Python and ECMAScript read differently, and would not both reject.
void check_same_in_both_dialects(const std::string& expression) {
  const auto reject = [&expression](const std::string& what) {
    detail::fail(kOp, "regular expression \"" + expression + "\": " + what);
  };
  bool in_class = false;
  for (std::size_t i = 0; i < expression.size(); ++i) {
    const char c = expression[i];
    const char next = i + 1 < expression.size() ? expression[i + 1] : '\0';
    if (c == '\\') {
      if (std::isalpha(static_cast<unsigned char>(next)) != 0 &&
          std::string_view("dDwWsSbBnrtfv").find(next) == std::string_view::npos) {
        reject(std::string("\\") + next + " is not supported");
      }
      ++i;
    } else if (in_class) {
      if (c == ']') in_class = false;
      if (c == '[' && (next == ':' || next == '.' || next == '=')) {
        reject("POSIX classes are not supported");
      }
    } else if (c == '[') {
      in_class = true;
      if (next == '^') ++i;
      if (i + 1 < expression.size() && expression[i + 1] == ']') {
        reject("a class that begins with ] is not supported; write \\]");
      }
    } else if (c == '(' && next == '?') {
      const char kind = i + 2 < expression.size() ? expression[i + 2] : '\0';
      if (kind != ':' && kind != '=' && kind != '!') {
        reject("of the groups (?…) only (?:…), (?=…) and (?!…) are supported");
      }
    } else if ((c == '*' || c == '+' || c == '?' || c == '}') && next == '+') {
      reject("possessive quantifiers are not supported");
    } else if (c == '{' && std::isdigit(static_cast<unsigned char>(next)) == 0) {
      reject("{ must be followed by a number; write \\{ for the character");
    }
  }
}

bool is_number(std::string_view part) {
  return !part.empty() && std::all_of(part.begin(), part.end(),
                                      [](unsigned char c) { return std::isdigit(c) != 0; });
}

std::vector<std::string_view> split_path(std::string_view path) {
  std::vector<std::string_view> parts;
  while (true) {
    const std::size_t dot = path.find('.');
    parts.push_back(path.substr(0, dot));
    if (dot == std::string_view::npos) return parts;
    path.remove_prefix(dot + 1);
  }
}

bool any_name_matches(const std::string& path, const std::vector<std::string>& names) {
  return std::any_of(names.begin(), names.end(),
                     [&path](const std::string& name) { return ends_with_name(path, name); });
}

}  // namespace

struct ModulePattern::Compiled {
  std::regex regex;
};

ModulePattern::ModulePattern(const std::string& expression) {
  check_same_in_both_dialects(expression);
  try {
    compiled_ =
        std::make_shared<const Compiled>(Compiled{std::regex(expression, std::regex::ECMAScript)});
  } catch (const std::regex_error& error) {
    detail::fail(kOp, "regular expression \"" + expression + "\" is not valid: " + error.what());
  }
}

bool ModulePattern::matches(const std::string& path) const {
  return std::regex_match(path, compiled_->regex);
}

bool targets_all_linear(const LoraConfig& config) {
  if (config.target_modules.size() != 1) return false;
  const std::string& word = config.target_modules.front();
  return std::equal(word.begin(), word.end(), kAllLinear.begin(), kAllLinear.end(),
                    [](unsigned char a, unsigned char b) { return std::tolower(a) == b; });
}

std::optional<std::int64_t> layer_index(const std::string& path,
                                        const std::vector<std::string>& containers) {
  const std::vector<std::string_view> parts = split_path(path);
  // `accepts` judges what stands before the number.
  const auto first_number = [&](std::size_t first, auto&& accepts) -> std::optional<std::int64_t> {
    for (std::size_t i = first; i + 1 < parts.size(); ++i) {
      const auto before = static_cast<std::size_t>(parts[i].data() - path.data()) - 1;
      if (!is_number(parts[i]) || !accepts(path.substr(0, before))) continue;
      std::int64_t index = 0;
      const auto read = std::from_chars(parts[i].data(), parts[i].data() + parts[i].size(), index);
      if (read.ec == std::errc()) return index;
    }
    return std::nullopt;
  };
  if (containers.empty()) {
    return first_number(2, [](const std::string&) { return true; });
  }
  for (const std::string& container : containers) {
    const ModulePattern pattern("(?:.*\\.)?(?:" + container + ")");
    const auto index =
        first_number(1, [&pattern](const std::string& prefix) { return pattern.matches(prefix); });
    if (index) return index;
  }
  return std::nullopt;
}

TargetMatch match_targets(const LoraConfig& config,
                          const std::vector<std::string>& paths,
                          const std::vector<std::size_t>& embeddings) {
  // PEFT reads a name of modules_to_save as a regular expression here, for whole parts of a path.
  std::vector<ModulePattern> saved;
  for (const std::string& name : config.modules_to_save) {
    saved.emplace_back("(?:.*\\.)?(?:" + name + ")(?:\\..*)?");
  }
  std::function<bool(const std::string&)> excluded = [&config](const std::string& path) {
    return any_name_matches(path, config.exclude_modules);
  };
  if (config.exclude_modules_regex) {
    excluded = [pattern = ModulePattern(*config.exclude_modules_regex)](const std::string& path) {
      return pattern.matches(path);
    };
  }

  std::function<bool(std::size_t)> targeted;
  if (config.target_modules_regex) {
    targeted = [&paths, pattern = ModulePattern(*config.target_modules_regex)](std::size_t i) {
      return pattern.matches(paths[i]);
    };
  } else if (targets_all_linear(config)) {
    targeted = [&embeddings](std::size_t i) {
      return std::find(embeddings.begin(), embeddings.end(), i) == embeddings.end();
    };
  } else {
    targeted = [&paths, &config](std::size_t i) {
      const std::string& path = paths[i];
      const auto& names = config.target_modules;
      // Layer numbers narrow what is found by the end of a path, not what is named in full.
      if (std::find(names.begin(), names.end(), path) != names.end()) return true;
      if (!any_name_matches(path, names)) return false;
      if (config.layers_to_transform.empty()) return true;
      const auto index = layer_index(path, config.layers_pattern);
      return index &&
             std::find(config.layers_to_transform.begin(), config.layers_to_transform.end(),
                       *index) != config.layers_to_transform.end();
    };
  }

  TargetMatch match;
  for (std::size_t i = 0; i < paths.size(); ++i) {
    const bool whole = std::any_of(saved.begin(), saved.end(), [&](const ModulePattern& pattern) {
      return pattern.matches(paths[i]);
    });
    if (!whole && !excluded(paths[i]) && targeted(i)) match.indices.push_back(i);
  }
  if (!config.target_modules_regex && !targets_all_linear(config)) {
    for (const std::string& name : config.target_modules) {
      const bool found = std::any_of(paths.begin(), paths.end(), [&name](const std::string& path) {
        return ends_with_name(path, name);
      });
      if (!found) match.unmatched.push_back(name);
    }
  }
  return match;
}

}  // namespace lorapp
