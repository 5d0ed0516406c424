// Adds an adapter to its base, writes the sum as a plain Hugging Face model folder, and shows what
// each weight gained and lost.
//
//   merge MODEL_FOLDER ADAPTER_FOLDER OUTPUT_FOLDER
#include <lorapp/peft/merge_pretrained.hpp>

#include <exception>
#include <iostream>

using namespace lorapp;

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: merge MODEL_FOLDER ADAPTER_FOLDER OUTPUT_FOLDER\n";
    return 2;
  }
  try {
    const MergeReport report = merge_pretrained(argv[1], argv[2], argv[3]);
    for (const MergedWeight& weight : report.weights) {
      std::cout << weight.name << ": update " << weight.relative_update().value_or(0)
                << " of the weight, error " << weight.relative_error().value_or(0) << '\n';
    }
    std::cout << report.changed_weights << " weights changed, " << report.bytes << " bytes in "
              << argv[3] << '\n';
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
  return 0;
}
