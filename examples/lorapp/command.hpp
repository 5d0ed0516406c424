// A subcommand: its options, and the job that runs once they are parsed.
// A job returns the exit status, or throws: CLI::ParseError is 2, anything else 1.
#pragma once

#include <functional>
#include <string>

namespace CLI {
class App;
}

namespace lorapp::program {

inline constexpr int kDone = 0;
inline constexpr int kFailed = 1;      // a file, a shape, memory, a number that is not finite
inline constexpr int kUsageError = 2;  // the command line

using Job = std::function<int()>;

struct Command {
  std::string name;
  std::string description;
  /// Adds the options to `app`, and returns the job that will read their values.
  std::function<Job(CLI::App& app)> set_up;
};

Command finetune_command();
Command generate_command();
Command eval_command();
Command tokenize_command();
Command merge_command();
Command quantize_command();
Command convert_command();
Command inspect_command();
Command download_command();
Command info_command();

}  // namespace lorapp::program
