// Loads one model folder as from_pretrained does, and prints what it took as one JSON object:
//   load_once MODEL_FOLDER [nf4|nf4_nested|none] [QUANT_CACHE]
// A process of its own for each load, so that peak memory is that of the load alone; "linked" is
// what a program that only links LibTorch uses. bench/load_peers.py runs it beside transformers.
#include <lorapp/io/memory.hpp>
#include <lorapp/nn/causal_lm.hpp>

#include <chrono>
#include <exception>
#include <iostream>
#include <string>

using namespace lorapp;

int main(int argc, char** argv) {
  const std::string format = argc > 2 ? argv[2] : "nf4";
  if (argc < 2 || (format != "nf4" && format != "nf4_nested" && format != "none")) {
    std::cerr << "usage: load_once MODEL_FOLDER [nf4|nf4_nested|none] [QUANT_CACHE]\n";
    return 2;
  }
  try {
    LoadOptions options;
    if (format != "none") options.quant_config.emplace().use_double_quant = format == "nf4_nested";
    if (argc > 3) options.quant_cache = argv[3];
    const std::uint64_t linked = peak_memory_bytes();
    const auto start = std::chrono::steady_clock::now();
    const auto model = CausalLM::from_pretrained(argv[1], options);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    std::cout << "{\"seconds\": " << seconds.count() << ", \"peak_bytes\": " << peak_memory_bytes()
              << ", \"linked_bytes\": " << linked << "}\n";
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
  return 0;
}
