// A small tokenizer for tests: sentencepiece with byte fallback, trained on a few sentences.
#pragma once

#include <sentencepiece_trainer.h>

#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace lorapp::test {

/// Number of pieces: <unk>, <s>, </s>, 256 bytes, and words and letters.
inline constexpr int kTinyVocabSize = 320;

/// The sentences as sentencepiece's trainer reads them.
class Sentences : public sentencepiece::SentenceIterator {
 public:
  explicit Sentences(const std::vector<std::string>& sentences) : sentences_(sentences) {}
  bool done() const override { return index_ == sentences_.size(); }
  void Next() override { ++index_; }
  const std::string& value() const override { return sentences_[index_]; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  const std::vector<std::string>& sentences_;
  std::size_t index_ = 0;
};

/// Writes tokenizer.model and tokenizer_config.json (bos is added, eos is not) into an existing
/// folder.
inline void write_tiny_tokenizer(const std::filesystem::path& folder) {
  const std::vector<std::string> sentences = {
      "Below is an instruction that describes a task.",
      "Write a response that appropriately completes the request.",
      "### Instruction: ### Input: ### Response:",
      "What is the capital of France? The capital of France is Paris.",
      "The quick brown fox jumps over the lazy dog, and the dog sleeps.",
      "One two three four five six seven eight nine ten.",
  };
  Sentences iterator(sentences);
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(
      "--model_type=bpe --vocab_size=" + std::to_string(kTinyVocabSize) +
          " --byte_fallback=true --character_coverage=1.0 --normalization_rule_name=identity"
          " --remove_extra_whitespaces=false --num_threads=1 --minloglevel=3",
      &iterator, &model);
  if (!status.ok()) throw std::runtime_error("training a tokenizer: " + status.ToString());
  std::ofstream(folder / "tokenizer.model", std::ios::binary) << model;
  std::ofstream(folder / "tokenizer_config.json")
      << R"({"tokenizer_class": "LlamaTokenizer", "add_bos_token": true, "add_eos_token": false,
"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "legacy": false})";
}

}  // namespace lorapp::test
