// Which layers a LoraConfig means: names, regular expressions, layer numbers.
// A path is a layer's dotted name, e.g. model.layers.0.self_attn.q_proj; every rule is PEFT's.
#pragma once

#include <lorapp/export.hpp>
#include <lorapp/peft/lora_config.hpp>

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lorapp {

/// A regular expression that has to match a whole path.
///
/// PEFT's are Python's. Accepted is what means the same in Python and in ECMAScript: literals, `.`,
/// classes, groups, `(?:…)`, look-ahead, alternatives, greedy and lazy quantifiers, `\d \w \s \b`,
/// back references. The rest (named groups, look-behind, inline flags, `\A`, `\Z`, possessive
/// quantifiers, POSIX classes) is an Error rather than a different answer.
class LORAPP_API ModulePattern {
 public:
  explicit ModulePattern(const std::string& expression);

  bool matches(const std::string& path) const;

 private:
  struct Compiled;
  std::shared_ptr<const Compiled> compiled_;
};

/// The word for "every Linear but the output embedding", in any case of letters.
inline constexpr std::string_view kAllLinear = "all-linear";

/// True where the targets are the one word "all-linear".
LORAPP_API bool targets_all_linear(const LoraConfig& config);

/// True if `path` is `name` or ends with `.name`.
inline bool ends_with_name(std::string_view path, std::string_view name) {
  if (path.size() == name.size()) return path == name;
  return path.size() > name.size() && path.ends_with(name) &&
         path[path.size() - name.size() - 1] == '.';
}

/// The number of the layer that `path` lies in: its first numbered part that has a part before
/// and behind it ("model.layers.3.mlp" is 3). With `containers`, the number behind one of these
/// names (regular expressions). Nothing where there is none.
LORAPP_API std::optional<std::int64_t> layer_index(const std::string& path,
                                                   const std::vector<std::string>& containers = {});

/// What became of each target of a configuration in a model.
struct TargetMatch {
  std::vector<std::size_t> indices;    ///< of the paths that get an adapter
  std::vector<std::string> unmatched;  ///< names in target_modules that no path ends with
};

/// Picks the layers that get an adapter. `paths` are those of all Linears and Embeddings,
/// `embeddings` the indices among them that "all-linear" leaves out: Embeddings and the head.
/// What belongs to a module of modules_to_save is left out.
LORAPP_API TargetMatch match_targets(const LoraConfig& config,
                                     const std::vector<std::string>& paths,
                                     const std::vector<std::size_t>& embeddings);

/// True if the module at `path`, or one that it lies in, is in modules_to_save.
inline bool is_saved_whole(const LoraConfig& config, std::string_view path) {
  while (true) {
    for (const std::string& name : config.modules_to_save) {
      if (path.ends_with(name)) return true;
    }
    const std::size_t dot = path.rfind('.');
    if (dot == std::string_view::npos) return false;
    path = path.substr(0, dot);
  }
}

}  // namespace lorapp
