// Loads a model in 4 bits, with an adapter if one is given, and streams its answer.
//
//   load_and_generate MODEL_FOLDER PROMPT [ADAPTER_FOLDER]
#include <lorapp/generate/generate.hpp>
#include <lorapp/peft/peft_model.hpp>

#include <iostream>
#include <memory>
#include <string_view>

using namespace lorapp;

int main(int argc, char** argv) {
  if (argc < 3 || argc > 4) {
    std::cerr << "usage: load_and_generate MODEL_FOLDER PROMPT [ADAPTER_FOLDER]\n";
    return 2;
  }
  try {
    const Tokenizer tokenizer = Tokenizer::from_pretrained(argv[1]);
    std::shared_ptr<CausalLM> model =
        CausalLM::from_pretrained(argv[1], {.quant_config = QuantConfig{}});
    if (argc > 3) {
      model = std::make_shared<PeftModel>(PeftModel::from_pretrained(model, argv[3]));
    }

    // What the folder recommends (end tokens, temperature, …), and what we want.
    GenerationConfig config = GenerationConfig::from_pretrained(argv[1]);
    config.max_new_tokens = 100;
    config.do_sample = true;
    config.top_p = 0.9;

    const GenerationResult result =
        generate(*model, tokenizer, argv[2], config,
                 [](std::string_view text) { std::cout << text << std::flush; });
    std::cout << "\n[" << result.tokens.size() << " tokens, " << to_string(result.finish_reason)
              << ", " << result.tokens_per_second << " tokens/s]\n";
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
  return 0;
}
