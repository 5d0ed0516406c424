// Data of your own: any type with size() and get(i) -> Example trains. Here a small new model
// learns to say a list of numbers backwards; it needs no files.
//
//   own_dataset [STEPS]
#include <lorapp/lorapp.hpp>

#include <cstdint>
#include <filesystem>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <vector>

using namespace lorapp;

namespace {

constexpr std::int64_t kReverse = 10;  // tokens 0 to 9 are digits
constexpr std::int64_t kEnd = 11;
constexpr std::int64_t kVocabulary = 12;
constexpr int kDigits = 4;

/// "3 1 4 1 reverse 1 4 1 3 end", of which only what follows "reverse" is scored.
class ReversedDigits {
 public:
  ReversedDigits(std::int64_t size, std::uint64_t seed) {
    std::mt19937_64 random(seed);
    for (std::int64_t i = 0; i < size; ++i) {
      Example example;
      for (int n = 0; n < kDigits; ++n) {
        example.ids.push_back(static_cast<std::int64_t>(random() % 10));
      }
      std::vector<std::int64_t> answer(example.ids.rbegin(), example.ids.rend());
      answer.push_back(kEnd);
      example.ids.push_back(kReverse);
      example.labels.assign(example.ids.size(), kIgnoreLabel);
      example.ids.insert(example.ids.end(), answer.begin(), answer.end());
      example.labels.insert(example.labels.end(), answer.begin(), answer.end());
      examples_.push_back(std::move(example));
    }
  }

  std::int64_t size() const { return static_cast<std::int64_t>(examples_.size()); }
  const Example& get(std::int64_t i) const { return examples_[static_cast<std::size_t>(i)]; }

 private:
  std::vector<Example> examples_;
};

static_assert(ExampleSource<ReversedDigits>);

void run(std::int64_t steps) {
  const auto model = CausalLM::from_config({.vocab_size = kVocabulary,
                                            .hidden_size = 64,
                                            .intermediate_size = 128,
                                            .num_hidden_layers = 2,
                                            .num_attention_heads = 4,
                                            .num_key_value_heads = 2,
                                            .max_position_embeddings = 64},
                                           /*seed=*/1);
  const ReversedDigits held_out(200, /*seed=*/2);
  std::cout << "loss before: " << evaluate_loss(*model, held_out, 50).loss << '\n';

  const auto output = std::filesystem::temp_directory_path() / "lorapp-own-dataset";
  Trainer trainer(*model,
                  TrainingArguments{.output_dir = output.string(),
                                    .per_device_train_batch_size = 64,
                                    .gradient_accumulation_steps = 1,
                                    .learning_rate = 3e-3,
                                    .max_steps = steps,
                                    .overwrite_output_dir = true,
                                    .save_strategy = "no"},
                  ReversedDigits(20000, /*seed=*/3));
  trainer.train();
  std::cout << "loss after " << steps << " steps: " << evaluate_loss(*model, held_out, 50).loss
            << '\n';
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run(argc > 1 ? std::stoll(argv[1]) : 300);
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
  return 0;
}
