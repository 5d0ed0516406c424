// Adds an adapter to its base and writes the sum as a plain Hugging Face model folder.
//
//   merge MODEL_FOLDER ADAPTER_FOLDER OUTPUT_FOLDER
#include <lorapp/data/tokenizer.hpp>
#include <lorapp/nn/causal_lm.hpp>
#include <lorapp/nn/traverse.hpp>
#include <lorapp/peft/peft_model.hpp>

#include <filesystem>
#include <iostream>
#include <memory>

using namespace lorapp;

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: merge MODEL_FOLDER ADAPTER_FOLDER OUTPUT_FOLDER\n";
    return 2;
  }
  try {
    if (std::filesystem::exists(argv[3]) && !std::filesystem::is_empty(argv[3])) {
      std::cerr << argv[3] << " is not empty\n";
      return 1;
    }
    // Dense: a 4-bit weight would round the update away.
    PeftModel tuned = PeftModel::from_pretrained(CausalLM::from_pretrained(argv[1]), argv[2]);
    const std::shared_ptr<CausalLM> merged = tuned.merge_and_unload();
    merged->save_pretrained(argv[3]);
    Tokenizer::from_pretrained(argv[1]).save_pretrained(argv[3]);
    std::cout << num_parameters(*merged) << " parameters in " << argv[3] << '\n';
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
  return 0;
}
