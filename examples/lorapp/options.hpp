// The options that several subcommands share, and what they become in the library's structs.
// A member is the option of the same name with dashes; its initializer is the option's default.
#pragma once

#include <lorapp/data/chat_template.hpp>
#include <lorapp/data/dolly.hpp>
#include <lorapp/data/example.hpp>
#include <lorapp/data/prompt_template.hpp>
#include <lorapp/data/tokenizer.hpp>
#include <lorapp/nn/causal_lm.hpp>
#include <lorapp/nn/load.hpp>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
class Validator;
}  // namespace CLI

namespace lorapp::program {

class Console;

/// Two flags, --name and --no-name, for one value; both at once is an error.
CLI::Option* add_switch(CLI::App& app, const std::string& name, bool& value, std::string help);

/// An option that may be repeated, one value each time.
CLI::Option* add_list(CLI::App& app,
                      const std::string& name,
                      std::vector<std::string>& values,
                      const std::string& help);

/// Accepts whole numbers from `least` on.
CLI::Validator at_least(std::int64_t least);

struct CommonOptions {
  std::optional<int> threads{};
  bool json = false;
  bool quiet = false;

  void add_to(CLI::App& app);
  /// Sets the number of LibTorch's threads.
  void apply() const;
};

struct ModelOptions {
  std::string model{};
  std::string device = "auto";
  std::string quant_type = "nf4";
  bool double_quant = false;
  std::int64_t blocksize = 64;
  std::string compute_dtype = "auto";
  std::string dtype = "auto";
  std::string quant_cache{};
  bool head_8bit = false;
  std::uint64_t seed = 42;
  const CLI::App* app = nullptr;  ///< the command line that it came from

  void add_to(CLI::App& command_line);
  /// --quant-cache, for what loads the model.
  void add_cache_to(CLI::App& command_line);
  /// --head-8bit, for what runs the model.
  void add_head_to(CLI::App& command_line);
  /// The model's folder; a model of the hub that the local cache has not is downloaded first.
  /// Throws Error before that if --device cannot be used.
  std::filesystem::path folder() const;
  /// --model as it was given, but for the @revision of a model on the hub.
  std::string base_name() const;
  /// That revision; empty where none was given.
  std::string revision() const;
  LoadOptions load_options() const;
  /// Checks that the tokenizer fits the model's embedding, and loads the model.
  std::shared_ptr<CausalLM> load(const Tokenizer& tokenizer, const Console& console) const;
};

/// What --template names: a chat template if `chat` is there.
struct RowTemplate {
  std::optional<PromptTemplate> prompt{};
  std::optional<ChatTemplate> chat{};

  /// The tokens that an answer to the row starts from.
  std::vector<std::int64_t> prompt_tokens(const Instruction& row, const Tokenizer& tokenizer) const;
};

struct TemplateOptions {
  std::string template_name = "alpaca";

  CLI::Option* add_to(CLI::App& app);
  /// `chat` is the chat template of the model folder; a name that prompt and chat templates share
  /// means the chat template if the rows are conversations.
  RowTemplate row_template(const std::filesystem::path& model,
                           const Tokenizer& tokenizer,
                           bool conversations) const;
};

struct DataOptions {
  std::vector<std::string> data{};
  std::string format = "auto";
  std::int64_t skip = 0;
  std::optional<std::int64_t> take{};
  TemplateOptions prompt{};
  std::int64_t max_length = 1024;
  bool append_eos = true;
  bool train_on_inputs = true;

  /// `files` is the option that names them.
  void add_to(CLI::App& app, const std::string& files = "--data", bool required = true);
  /// The rows of the files, one after the other, without the first `skip`, then `take` of them.
  DollyDataset read() const;
  DollyDataset read_file(const std::string& file) const;
  /// Tokenizes rows, with a note on what was cut.
  TokenizedDataset tokenize(const DollyDataset& rows,
                            const Tokenizer& tokenizer,
                            const std::filesystem::path& model,
                            const Console& console) const;
  RowTemplate row_template(const DollyDataset& rows,
                           const Tokenizer& tokenizer,
                           const std::filesystem::path& model) const;
};

}  // namespace lorapp::program
