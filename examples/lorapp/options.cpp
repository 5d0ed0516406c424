#include "options.hpp"

#include "console.hpp"
#include "hub.hpp"

#include <lorapp/data/labels.hpp>
#include <lorapp/error.hpp>
#include <lorapp/generate/generate.hpp>
#include <lorapp/io/dtype.hpp>
#include <lorapp/io/hub_cache.hpp>
#include <lorapp/nn/model_config.hpp>
#include <lorapp/quant/backend.hpp>
#include <lorapp/quant/config.hpp>

#include <ATen/Parallel.h>
#include <c10/core/Device.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <bit>
#include <charconv>
#include <string>
#include <system_error>
#include <utility>

namespace lorapp::program {

namespace {

const CLI::IsMember kDtypes({"auto", "float32", "bfloat16", "float16"});

std::optional<torch::Dtype> dtype_option(const std::string& name) {
  if (name == "auto") return std::nullopt;
  return parse_hf_dtype(name);
}

/// "auto", "cpu", "cuda" or "cuda:N"; an empty text if it is one of them.
std::string check_device(const std::string& name) {
  const std::string expected = "expected auto, cpu, cuda or cuda:N, found \"" + name + "\"";
  if (name == "auto" || name == "cpu" || name == "cuda") return {};
  if (!name.starts_with("cuda:") || name.size() == 5 || name.size() > 8) return expected;
  const bool digits =
      std::all_of(name.begin() + 5, name.end(), [](char c) { return c >= '0' && c <= '9'; });
  return digits ? std::string{} : expected;
}

/// Whether `text` is one whole number of type T. CLI11 2.1 takes what is too large, or negative
/// where T is not, as the nearest or another number.
template <class T>
bool is_whole(const std::string& text, T& number) {
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  return error == std::errc{} && stop == end;
}

std::string check_seed(const std::string& text) {
  std::uint64_t seed = 0;
  if (is_whole(text, seed)) return {};
  return "expected a whole number from 0 to 18446744073709551615, found \"" + text + "\"";
}

std::string check_blocksize(const std::string& text) {
  std::uint64_t size = 0;
  if (is_whole(text, size) && std::has_single_bit(size) && size >= 32 && size <= 4096) return {};
  return "expected a power of two from 32 to 4096, found \"" + text + "\"";
}

// auto: the first GPU that the kernels run on, else the CPU.
torch::Device choose_device(const std::string& name) {
  if (name == "cpu") return torch::kCPU;
  if (name == "auto") {
    const std::vector<CudaDevice> gpus = cuda_devices();
    for (std::size_t i = 0; i < gpus.size(); ++i) {
      if (gpus[i].problem.empty()) return {torch::kCUDA, static_cast<c10::DeviceIndex>(i)};
    }
    return torch::kCPU;
  }
  std::size_t index = 0;  // check_device has seen that it is a number
  if (name.size() > 5) is_whole(name.substr(5), index);
  const std::string problem = cuda_problem(static_cast<std::int64_t>(index));
  LORAPP_CHECK(problem.empty(), "device", "--device ", name, " cannot be used: ", problem);
  return {torch::kCUDA, static_cast<c10::DeviceIndex>(index)};
}

}  // namespace

CLI::Validator at_least(std::int64_t least) {
  const auto check = [least](const std::string& text) {
    std::int64_t number = 0;
    if (is_whole(text, number) && number >= least) return std::string{};
    return "expected a whole number, " + std::to_string(least) + " or more, found \"" + text + "\"";
  };
  return CLI::Validator(check, ">=" + std::to_string(least));
}

CLI::Option* add_switch(CLI::App& app, const std::string& name, bool& value, std::string help) {
  help += value ? " (default: on)" : " (default: off)";
  return app.add_flag("--" + name + ",!--no-" + name, value, help)
      ->multi_option_policy(CLI::MultiOptionPolicy::Throw);
}

CLI::Option* add_list(CLI::App& app,
                      const std::string& name,
                      std::vector<std::string>& values,
                      const std::string& help) {
  return app.add_option(name, values, help)->allow_extra_args(false);
}

void CommonOptions::add_to(CLI::App& app) {
  app.add_option("--threads", threads, "Threads that LibTorch computes on")
      ->check(CLI::Range(1, 4096))
      ->default_str("one a core");
  app.add_flag("--json", json, "Print the result as one JSON object on stdout");
  app.add_flag("--quiet", quiet, "Print no progress and no notes, only results and errors");
}

void CommonOptions::apply() const {
  if (threads) at::set_num_threads(*threads);
}

void ModelOptions::add_to(CLI::App& command_line) {
  app = &command_line;
  command_line
      .add_option(
          "--model", model,
          "A Hugging Face model folder, or the id of a model on the hub, owner/name[@revision]")
      ->required();
  command_line.add_option("--device", device, "auto, cpu, cuda or cuda:N")
      ->capture_default_str()
      ->check(CLI::Validator(check_device, "DEVICE"));
  command_line
      .add_option("--quant-type", quant_type,
                  "4-bit format of the linear layers; none keeps them dense. A folder that is "
                  "quantized already stays as it is")
      ->capture_default_str()
      ->check(CLI::IsMember({"nf4", "fp4", "none"}));
  add_switch(command_line, "double-quant", double_quant,
             "Quantize the block scales to 8 bits as well");
  command_line.add_option("--blocksize", blocksize, "Weights that share one scale")
      ->capture_default_str()
      ->check(CLI::Validator(check_blocksize, "32..4096"));
  command_line
      .add_option("--compute-dtype", compute_dtype,
                  "Type of the quantized products; auto: bfloat16 on a GPU and where the processor "
                  "multiplies it natively, else float32")
      ->capture_default_str()
      ->check(kDtypes);
  command_line
      .add_option("--dtype", dtype,
                  "Type of every other weight, and of a weight before it is quantized; auto: the "
                  "file's")
      ->capture_default_str()
      ->check(kDtypes);
  command_line.add_option("--seed", seed, "Seed of everything random")
      ->capture_default_str()
      ->check(CLI::Validator(check_seed, ""));
}

void ModelOptions::add_cache_to(CLI::App& command_line) {
  command_line
      .add_option("--quant-cache", quant_cache,
                  "Folder that keeps quantized models, so that the next start is quick")
      ->default_str("none");
}

void ModelOptions::add_head_to(CLI::App& command_line) {
  command_line.add_flag("--head-8bit", head_8bit,
                        "Hold the output head in 8 bits, one scale a row; it is dense otherwise");
}

std::filesystem::path ModelOptions::folder() const {
  if (device != "auto") choose_device(device);  // throws before a model is downloaded in vain
  return model_folder(model, {}, app != nullptr && app->count("--quiet") > 0);
}

std::string ModelOptions::base_name() const {
  return revision().empty() ? model : model.substr(0, model.find('@'));
}

std::string ModelOptions::revision() const {
  std::error_code error;
  const auto name = parse_hub_name(model);
  return name && !std::filesystem::exists(model, error) ? name->revision : std::string{};
}

LoadOptions ModelOptions::load_options() const {
  LoadOptions options;
  options.device = choose_device(device);
  options.dtype = dtype_option(dtype);
  options.quant_cache = quant_cache;
  options.head_8bit = head_8bit;
  if (quant_type != "none") {
    options.quant_config = QuantConfig{.quant_type = parse_quant_type(quant_type),
                                       .compute_dtype = dtype_option(compute_dtype),
                                       .use_double_quant = double_quant,
                                       .blocksize = blocksize};
  }
  return options;
}

std::shared_ptr<CausalLM> ModelOptions::load(const Tokenizer& tokenizer,
                                             const Console& console) const {
  const LoadOptions options = load_options();
  const std::int64_t rows = ModelConfig::from_pretrained(folder()).vocab_size;
  LORAPP_CHECK(tokenizer.vocab_size() <= rows, "tokenizer", model, ": the tokenizer has ",
               tokenizer.vocab_size(), " tokens, but the model's embedding has ", rows, " rows");
  console.say("Loading " + model + (options.quant_config ? " in 4 bits" : "") +
              (options.head_8bit ? ", its head in 8 bits" : ""));
  return CausalLM::from_pretrained(folder(), options);
}

CLI::Option* TemplateOptions::add_to(CLI::App& app) {
  return app
      .add_option(
          "--template", template_name,
          "alpaca, dolly, mistral-instruct, a template file (JSON); chat (the model's own), "
          "mistral-v1, mistral-v3, llama2, llama3, chatml, a chat template file (.jinja)")
      ->capture_default_str();
}

RowTemplate TemplateOptions::row_template(const std::filesystem::path& model,
                                          const Tokenizer& tokenizer,
                                          bool conversations) const {
  const auto& names = ChatTemplate::built_in_names();
  const bool shared = template_name == "alpaca" || template_name == "dolly";
  const bool built_in = std::find(names.begin(), names.end(), template_name) != names.end();
  if (template_name == "chat") return {.chat = ChatTemplate::from_pretrained(model, tokenizer)};
  if (built_in && (conversations || !shared))
    return {.chat = ChatTemplate::built_in(template_name, tokenizer)};
  if (template_name.ends_with(".jinja"))
    return {.chat = ChatTemplate::from_file(template_name, tokenizer)};
  return {.prompt = PromptTemplate::named_or_file(template_name)};
}

std::vector<std::int64_t> RowTemplate::prompt_tokens(const Instruction& row,
                                                     const Tokenizer& tokenizer) const {
  if (!chat) return detail::prompt_tokens(tokenizer, prompt->render_prompt(row));
  const auto messages = ChatTemplate::messages_of(row, /*prompt=*/true);
  return encode_chat(tokenizer, chat->render(messages, {.add_generation_prompt = true})).ids;
}

void DataOptions::add_to(CLI::App& app, const std::string& files, bool required) {
  add_list(app, files, data, "Data file, JSONL or a JSON array; may be given several times")
      ->required(required);
  app.add_option("--format", format, "Fields of the rows; auto: by those of the first row")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "dolly", "alpaca", "text", "chat"}));
  app.add_option("--skip", skip, "Rows to leave out at the beginning")
      ->capture_default_str()
      ->check(at_least(0));
  app.add_option("--take", take, "Rows to use, in the files' order")
      ->default_str("all")
      ->check(at_least(1));
  prompt.add_to(app);
  app.add_option("--max-length", max_length, "Tokens of an example; the rest is cut off")
      ->capture_default_str()
      ->check(at_least(1));
  add_switch(app, "append-eos", append_eos, "End every example with the end token");
  add_switch(app, "train-on-inputs", train_on_inputs, "Score the prompt as well as the response");
}

DollyDataset DataOptions::read_file(const std::string& file) const {
  return DollyDataset::from_file(file, parse_data_format(format));
}

DollyDataset DataOptions::read() const {
  DollyDataset rows;
  for (const std::string& file : data) rows = rows.concatenate(read_file(file));
  const std::int64_t all = rows.size();
  rows = rows.skip(skip);
  if (take) rows = rows.take(*take);
  LORAPP_CHECK(!rows.empty(), "data", "--skip ", skip, " leaves none of the ", all, " rows");
  return rows;
}

RowTemplate DataOptions::row_template(const DollyDataset& rows,
                                      const Tokenizer& tokenizer,
                                      const std::filesystem::path& model) const {
  const auto is_chat = [](const Instruction& row) { return !row.messages.empty(); };
  return prompt.row_template(model, tokenizer, !rows.filter(is_chat).empty());
}

TokenizedDataset DataOptions::tokenize(const DollyDataset& rows,
                                       const Tokenizer& tokenizer,
                                       const std::filesystem::path& model,
                                       const Console& console) const {
  const RowTemplate made = row_template(rows, tokenizer, model);
  const TokenizeOptions options{
      .max_length = max_length, .append_eos = append_eos, .train_on_inputs = train_on_inputs};
  TokenizedDataset examples = made.chat ? rows.tokenize(tokenizer, *made.chat, options)
                                        : rows.tokenize(tokenizer, *made.prompt, options);
  const auto& counts = examples.statistics();
  console.say(std::to_string(counts.examples) + " examples, " + std::to_string(counts.tokens) +
              " tokens, " + std::to_string(counts.scored_tokens) + " of them scored");
  if (counts.cut_examples > 0) {
    console.note(std::to_string(counts.cut_examples) + " of " + std::to_string(counts.examples) +
                 " examples were longer than --max-length " + std::to_string(max_length) +
                 " and were cut");
  }
  return examples;
}

}  // namespace lorapp::program
