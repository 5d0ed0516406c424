// make_base: pretrains the quickstart's small Mistral-architecture model on the generated world.
// It learns the facts as plain text; no document has the prompt format that the quickstart tunes.
#include "world.hpp"

#include <lorapp/data/tokenizer.hpp>
#include <lorapp/nn/causal_lm.hpp>
#include <lorapp/train/trainer.hpp>

#include <sentencepiece_trainer.h>
#include <torch/utils.h>
#include <unistd.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <set>
#include <sstream>

namespace {

using lorapp::CausalLM;
using lorapp::Example;
using lorapp::ModelConfig;
using lorapp::TokenizedDataset;
using lorapp::Tokenizer;

struct Options {
  std::string output_dir;
  std::uint64_t seed = 1;
  int rounds = 260;  // times every fact is stated or asked
  std::int64_t vocab_size = 2048;
  std::int64_t row_tokens = 256;  // documents are laid end to end and cut into rows of this length
  std::int64_t batch_rows = 4;
  double learning_rate = 2e-3;
  int threads = 0;
};

// Hands the lines of the documents to the sentencepiece trainer.
class Lines : public sentencepiece::SentenceIterator {
 public:
  explicit Lines(const std::vector<std::string>& documents) {
    std::set<std::string> lines;
    for (const std::string& document : documents) {
      std::istringstream text(document);
      for (std::string line; std::getline(text, line);) {
        if (!line.empty()) lines.insert(line);
      }
    }
    lines_.assign(lines.begin(), lines.end());
  }
  bool done() const override { return at_ == lines_.size(); }
  void Next() override { ++at_; }
  const std::string& value() const override { return lines_[at_]; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  std::vector<std::string> lines_;
  std::size_t at_ = 0;
};

void write_file(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream out(path, std::ios::binary);
  out << bytes;
  out.close();
  LORAPP_CHECK(out, "make_base", path.string(), ": cannot be written");
}

// A vocabulary in the manner of Llama's: BPE, digits apart, no normalisation, bytes for the rest.
Tokenizer train_tokenizer(const std::vector<std::string>& documents, const Options& options) {
  Lines lines(documents);
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(
      {{"vocab_size", std::to_string(options.vocab_size)},
       {"model_type", "bpe"},
       {"byte_fallback", "true"},
       {"split_digits", "true"},
       {"normalization_rule_name", "identity"},
       {"remove_extra_whitespaces", "false"},
       {"character_coverage", "1.0"},
       {"minloglevel", "2"}},
      &lines, &model);
  LORAPP_CHECK(status.ok(), "make_base", "sentencepiece: ", status.ToString());
  const std::filesystem::path dir = options.output_dir;
  write_file(dir / "tokenizer.model", model);
  const nlohmann::ordered_json config = {{"add_bos_token", true},
                                         {"add_eos_token", false},
                                         {"bos_token", "<s>"},
                                         {"clean_up_tokenization_spaces", false},
                                         {"eos_token", "</s>"},
                                         {"legacy", false},
                                         {"model_max_length", 512},
                                         {"pad_token", nullptr},
                                         {"tokenizer_class", "LlamaTokenizer"},
                                         {"unk_token", "<unk>"}};
  write_file(dir / "tokenizer_config.json", config.dump(2) + "\n");
  return Tokenizer::from_pretrained(dir);
}

// bos document eos bos document eos …, cut into rows; every token of a row is scored.
TokenizedDataset pack(const std::vector<std::string>& documents,
                      const Tokenizer& tokenizer,
                      std::int64_t row_tokens) {
  std::vector<std::int64_t> stream;
  for (const std::string& document : documents) {
    const std::vector<std::int64_t> ids = tokenizer.encode(document);
    stream.insert(stream.end(), ids.begin(), ids.end());
    stream.push_back(tokenizer.eos_id().value());
  }
  std::vector<Example> rows;
  for (auto at = stream.begin(); stream.end() - at >= row_tokens; at += row_tokens) {
    const std::vector<std::int64_t> ids(at, at + row_tokens);
    rows.push_back({ids, ids});
  }
  return TokenizedDataset(std::move(rows));
}

ModelConfig base_config(const Tokenizer& tokenizer) {
  ModelConfig config;
  config.model_type = "mistral";
  config.architectures = {"MistralForCausalLM"};
  config.hidden_size = 256;
  config.intermediate_size = 704;
  config.num_hidden_layers = 4;
  config.num_attention_heads = 8;
  config.num_key_value_heads = 4;
  config.head_dim = 32;
  config.vocab_size = tokenizer.vocab_size();
  config.max_position_embeddings = 512;
  config.sliding_window = std::nullopt;
  config.tie_word_embeddings = false;
  config.bos_token_id = tokenizer.bos_id();
  config.eos_token_id = {tokenizer.eos_id().value()};
  config.dtype = torch::kFloat32;  // of the training; the saved weights are bf16
  return config;
}

void run(const Options& options) {
  if (options.threads > 0) at::set_num_threads(options.threads);
  std::filesystem::create_directories(options.output_dir);
  const auto documents = quickstart::pretraining_documents(options.seed, options.rounds);
  const Tokenizer tokenizer = train_tokenizer(documents, options);
  const TokenizedDataset rows = pack(documents, tokenizer, options.row_tokens);
  std::cerr << quickstart::facts().size() << " facts, " << documents.size() << " documents, "
            << rows.num_tokens() << " tokens\n";

  auto model = CausalLM::from_config(base_config(tokenizer), options.seed);
  lorapp::TrainingArguments arguments;
  // The loss curve of the run stays beside the model.
  arguments.output_dir = (std::filesystem::path(options.output_dir) / "training").string();
  arguments.overwrite_output_dir = true;
  arguments.per_device_train_batch_size = options.batch_rows;
  arguments.gradient_accumulation_steps = 1;
  arguments.learning_rate = options.learning_rate;
  arguments.num_train_epochs = 1;
  arguments.shuffle = false;  // the text has an order of its own
  arguments.lr_scheduler_type = lorapp::SchedulerType::cosine;
  arguments.warmup_steps = 0.05;
  arguments.logging_steps = 50;
  arguments.save_strategy = "no";
  arguments.seed = options.seed;
  lorapp::Trainer trainer(*model, arguments, rows);
  trainer.add_callback(
      std::make_shared<lorapp::ProgressCallback>(std::cerr, isatty(STDERR_FILENO) != 0));
  trainer.train();

  model->to(torch::kBFloat16);
  model->save_pretrained(options.output_dir);
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app{"Pretrains the quickstart's base model on text about a small world of true facts."};
  app.add_option("--output-dir", options.output_dir, "folder for the model")->required();
  app.add_option("--seed", options.seed, "of the text, the weights and the order");
  app.add_option("--rounds", options.rounds, "how often every fact is told")->capture_default_str();
  app.add_option("--learning-rate", options.learning_rate, "peak of the cosine")
      ->capture_default_str();
  app.add_option("--batch-rows", options.batch_rows, "rows of 256 tokens a step")
      ->capture_default_str();
  app.add_option("--threads", options.threads, "0: LibTorch's own choice");
  CLI11_PARSE(app, argc, argv);
  try {
    run(options);
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "make_base: " << error.what() << '\n';
    return 1;
  }
}
