// The --config file: TOML's `name = value` lines, read strictly.
// Names are the options' without the dashes; anything that cannot be read is an error with its
// line.
#pragma once

#include <CLI/CLI.hpp>

#include <istream>
#include <string>
#include <vector>

namespace lorapp::program {

/// Strings ("…" with escapes, '…' as they are), numbers, true and false, and arrays of those, over
/// several lines too. CLI11's own reader cuts strings at '#' and at spaces and accepts lines
/// without '=', which would change a value without a word.
class TomlConfig : public CLI::ConfigBase {
 public:
  /// The names allowed are those of the options of `app`, which must outlive this.
  explicit TomlConfig(const CLI::App& app) : app_(app) {}

  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override;

 private:
  const CLI::App& app_;
};

}  // namespace lorapp::program
