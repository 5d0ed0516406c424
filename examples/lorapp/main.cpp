// lorapp: one program, a subcommand for each use of the library.
// Exit status: 0 done, 1 the job failed, 2 wrong command line, 130 and 143 after a signal.
#include "command.hpp"
#include "interrupt.hpp"
#include "toml_config.hpp"

#include <lorapp/error.hpp>
#include <lorapp/version.hpp>

#include <c10/util/Exception.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <exception>
#include <iostream>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <vector>

namespace {

using namespace lorapp::program;

int report(std::string_view message, int status) {
  // Several lines are fine; a line feed at the end is ours.
  while (message.ends_with('\n')) message.remove_suffix(1);
  std::cerr << "lorapp: error: " << message << std::endl;
  return status;
}

/// Every way a command may end becomes one message on stderr and an exit status.
template <class F>
int guarded(CLI::App& app, const F& run) {
  try {
    return run();
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error, std::cout, std::cerr);  // -h, --version
    return report(std::string(error.what()) + "\nRun with --help for the options.", kUsageError);
  } catch (const lorapp::Error& error) {
    return report(error.what(), kFailed);
  } catch (const c10::OutOfMemoryError& error) {
    return report(std::string("the GPU's memory is full; a smaller batch, a shorter --max-length or "
                              "--gradient-checkpointing takes less: ") +
                      error.what_without_backtrace(),
                  kFailed);
  } catch (const c10::Error& error) {
    return report(error.what_without_backtrace(), kFailed);
  } catch (const std::bad_alloc&) {
    return report("out of memory", kFailed);
  } catch (const std::exception& error) {
    return report(error.what(), kFailed);
  }
}

/// What was printed has reached its file: a full disk must not look like success.
int flush_results(int status) {
  std::cout.flush();
  if (std::cout.good() || status != kDone) return status;
  return report("the results could not be written to standard output", kFailed);
}

int run_command(const Command& command, std::vector<std::string> arguments) {
  CLI::App app(command.description, "lorapp " + command.name);
  app.set_config("--config", "", "Read options from a TOML file; the command line wins");
  app.config_formatter(std::make_shared<TomlConfig>(app));
  app.get_formatter()->column_width(36);
  const Job job = command.set_up(app);
  return guarded(app, [&] {
    std::ranges::reverse(arguments);  // CLI11 reads a vector from its end
    app.parse(std::move(arguments));
    return flush_results(job());
  });
}

}  // namespace

int main(int argc, char** argv) {
  exit_on_signals();
  const std::vector<Command> commands = {finetune_command(), generate_command(), eval_command(),
                                         merge_command(),    quantize_command(), convert_command(),
                                         tokenize_command(), inspect_command(),  download_command(),
                                         info_command()};
  if (argc > 1) {
    const auto found = std::ranges::find(commands, std::string(argv[1]), &Command::name);
    if (found != commands.end()) return run_command(*found, {argv + 2, argv + argc});
  }

  CLI::App app("Fine-tunes language models with QLoRA, and runs them.", "lorapp");
  app.set_version_flag("--version", std::string("lorapp ") + lorapp::kVersion);
  app.require_subcommand(1);
  app.footer("lorapp SUBCOMMAND --help explains the options of one.");
  for (const Command& command : commands) app.add_subcommand(command.name, command.description);
  return guarded(app, [&] {
    if (argc > 1 && argv[1][0] != '-') {
      std::string names;
      for (const Command& command : commands) names += " " + command.name;
      throw CLI::ParseError(
          "\"" + std::string(argv[1]) + "\" is not a subcommand; expected one of" + names,
          CLI::ExitCodes::ExtrasError);
    }
    app.parse(argc, argv);
    // Only a subcommand behind an option could get here, and there is no such option.
    return kUsageError;
  });
}
