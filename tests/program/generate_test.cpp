// lorapp generate and eval.
#include "process.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <csignal>
#include <string>

using namespace lorapp::test;

namespace {

Arguments generate(const World& world, const Arguments& more) {
  Arguments arguments = {"generate", "--model", world.model(), "--threads", "1"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

}  // namespace

TEST_SUITE("program") {
  TEST_CASE("generate: the JSON object has exactly the promised fields") {
    const World world;
    const Json result = run_lorapp(generate(world, {"--prompt", "The dog", "--max-new-tokens", "5",
                                                    "--ignore-eos", "--json", "--seed", "3"}))
                            .json();
    CHECK(result.size() == 6);
    CHECK(result["prompt_tokens"] ==
          run_lorapp({"tokenize", "--model", world.model(), "--text", "The dog", "--json"})
              .json()["tokens"]);
    CHECK(result["tokens"].size() == 5);
    CHECK(result["finish_reason"] == "length");
    CHECK(result["text"].is_string());
    CHECK(result["tokens_per_second"].get<double>() > 0);
    CHECK(result["prefill_tokens_per_second"].get<double>() > 0);
  }

  TEST_CASE("generate: stdout is the text alone, streamed or not; --quiet leaves stderr empty") {
    const World world;
    const Arguments base = {"--prompt", "One two", "--max-new-tokens", "12", "--quiet"};
    const Outcome streamed = run_lorapp(generate(world, base));
    Arguments late = base;
    late.push_back("--no-stream");
    Arguments json = base;
    json.push_back("--json");
    CHECK(streamed.status == 0);
    CHECK(streamed.err.empty());
    CHECK(streamed.out == run_lorapp(generate(world, late)).out);
    CHECK(streamed.out ==
          run_lorapp(generate(world, json)).json()["text"].get<std::string>() + "\n");
    CHECK_FALSE(
        run_lorapp(generate(world, {"--prompt", "x", "--max-new-tokens", "1"})).err.empty());
  }

  TEST_CASE(
      "generate, eval, finetune: --head-8bit changes the loss a little, and refuses lm_head") {
    const World world;
    const std::string data =
        world.folder().write("rows.jsonl", "{\"text\": \"The dog sees the fox.\"}\n").string();
    const auto run = [&](Arguments arguments, const Arguments& more) {
      arguments.insert(arguments.end(), {"--model", world.model(), "--threads", "1", "--json"});
      arguments.insert(arguments.end(), more.begin(), more.end());
      return run_lorapp(arguments);
    };
    const double dense = run({"eval", "--data", data}, {}).json()["loss"];
    const double ours = run({"eval", "--data", data}, {"--head-8bit"}).json()["loss"];
    CHECK(ours != dense);
    CHECK(ours == doctest::Approx(dense).epsilon(1e-2));
    const Outcome said = run({"generate", "--prompt", "The dog", "--max-new-tokens", "3"},
                             {"--head-8bit", "--ignore-eos"});
    CHECK(said.status == 0);
    CHECK(said.json()["tokens"].size() == 3);
    const Arguments finetune = {"finetune", "--data", data, "--max-steps", "1"};
    CHECK(run(finetune, {"--head-8bit", "--output-dir", world.path("out")}).status == 0);
    const Outcome refused = run(finetune, {"--head-8bit", "--output-dir", world.path("none"),
                                           "--modules-to-save", "lm_head"});
    CHECK(refused.status == 1);
    CHECK(contains(refused.err, "modules_to_save names lm_head"));
  }

  TEST_CASE("generate: an instruction goes through the template, a prompt does not") {
    const World world;
    const auto prompt_tokens = [&](const Arguments& more) {
      Arguments arguments = generate(world, more);
      arguments.insert(arguments.end(), {"--max-new-tokens", "1", "--json"});
      return run_lorapp(arguments).json()["prompt_tokens"];
    };
    CHECK(prompt_tokens({"--instruction", "Add.", "--input", "1 and 2"}) ==
          prompt_tokens(
              {"--prompt",
               "Below is an instruction that describes a task, paired with an input that provides "
               "further context. Write a response that appropriately completes the request.\n\n"
               "### Instruction:\nAdd.\n\n### Input:\n1 and 2\n\n### Response:\n"}));
    CHECK(prompt_tokens({"--instruction", "Add.", "--template", "mistral-instruct"}) ==
          prompt_tokens({"--prompt", "[INST] Add. [/INST]"}));
  }

  TEST_CASE("generate: an instruction goes through a chat template, built in or the model's own") {
    const World world;
    const auto prompt_tokens = [&](const Arguments& more) {
      Arguments arguments = generate(world, more);
      arguments.insert(arguments.end(), {"--max-new-tokens", "1", "--json"});
      const Outcome outcome = run_lorapp(arguments);
      CAPTURE(outcome.err);
      REQUIRE(outcome.status == 0);
      return outcome.json()["prompt_tokens"];
    };
    const auto parsed = [&](const std::string& text) {
      return run_lorapp({"tokenize", "--model", world.model(), "--text", text, "--parse-special",
                         "--no-special-tokens", "--json"})
          .json()["tokens"];
    };
    CHECK(prompt_tokens({"--instruction", "Add.", "--template", "mistral-v3"}) ==
          parsed("<s>[INST] Add.[/INST]"));
    CHECK(prompt_tokens({"--instruction", "Add.", "--input", "1", "--template", "llama2"}) ==
          parsed("<s>[INST] Add.\n\n1 [/INST]"));
    const std::string file =
        world.folder()
            .write("own.jinja", "{{ bos_token }}Q: {{ messages[0].content }} A:")
            .string();
    CHECK(prompt_tokens({"--instruction", "Add.", "--template", file}) == parsed("<s>Q: Add. A:"));
    const Outcome none =
        run_lorapp(generate(world, {"--instruction", "Add.", "--template", "chat"}));
    CHECK(none.status == 1);
    CHECK(contains(none.err, "has no chat template"));
    world.folder().write("model/chat_template.jinja",
                         "{{ eos_token }}{% for m in messages %}{{ m.content }}{% endfor %}");
    CHECK(prompt_tokens({"--instruction", "Add.", "--template", "chat"}) == parsed("</s>Add."));
  }

  TEST_CASE("finetune and eval: conversations are trained and asked through a chat template") {
    const World world;
    const std::string data =
        world.folder()
            .write(
                "chat.jsonl",
                R"({"messages": [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "The dog."}]})"
                "\n"
                R"({"messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Who?"}, {"role": "assistant", "content": "A fox."}]})"
                "\n")
            .string();
    const auto eval = [&](const Arguments& more) {
      Arguments arguments = {"eval",   "--model", world.model(),          "--threads", "1",
                             "--data", data,      "--no-train-on-inputs", "--json"};
      arguments.insert(arguments.end(), more.begin(), more.end());
      return run_lorapp(arguments);
    };
    const Outcome result =
        eval({"--format", "chat", "--template", "mistral-v1", "--generate", "1"});
    CAPTURE(result.err);
    REQUIRE(result.status == 0);
    CHECK(result.json()["generated"] == 1);
    const auto all = run_lorapp({"eval", "--model", world.model(), "--threads", "1", "--data", data,
                                 "--template", "mistral-v1", "--json"})
                         .json();
    CHECK(all["tokens"].get<int>() > result.json()["tokens"].get<int>());
    CHECK(eval({"--template", "alpaca"}).status == 0);
    const Outcome prompt = eval({"--template", "mistral-instruct"});
    CHECK(prompt.status == 1);
    CHECK(contains(prompt.err, "a row of messages needs a chat template"));
    const Outcome tuned =
        run_lorapp({"finetune", "--model", world.model(), "--data", data, "--template", "llama2",
                    "--no-train-on-inputs", "--output-dir", world.path("chat-out"), "--max-steps",
                    "2", "--threads", "1", "--json"});
    CAPTURE(tuned.err);
    CHECK(tuned.status == 0);
  }

  TEST_CASE("generate: sampling repeats with the seed and depends on it") {
    const World world;
    const auto tokens = [&](const char* seed) {
      return run_lorapp(generate(world, {"--prompt", "The", "--do-sample", "--top-k", "0",
                                         "--max-new-tokens", "12", "--ignore-eos", "--json",
                                         "--seed", seed}))
          .json()["tokens"];
    };
    CHECK(tokens("1") == tokens("1"));
    CHECK(tokens("1") != tokens("2"));
  }

  TEST_CASE("generate: a stop text ends with reason stop and is not printed") {
    const World world;
    const Arguments base = {"--prompt", "The quick", "--max-new-tokens", "30", "--json"};
    const std::string text = run_lorapp(generate(world, base)).json()["text"];
    const std::size_t letter = text.find_first_of("abcdefghijklmnopqrstuvwxyz", 1);
    REQUIRE(letter != std::string::npos);
    const std::string stop = text.substr(letter, 1);
    Arguments stopped = base;
    stopped.insert(stopped.end(), {"--stop", "not in the text", "--stop", stop});
    const Json result = run_lorapp(generate(world, stopped)).json();
    CHECK(result["finish_reason"] == "stop");
    CHECK(result["text"] == text.substr(0, text.find(stop)));
  }

  TEST_CASE("generate: --compare gives the base's answer and the adapter's") {
    const World world;
    REQUIRE(run_lorapp(world.finetune({"--learning-rate", "0.05", "--quiet"})).status == 0);
    const Arguments base = {"--instruction", "What comes after 3?", "--max-new-tokens", "8",
                            "--json"};
    const auto with = [&](const Arguments& more) {
      Arguments arguments = generate(world, base);
      arguments.insert(arguments.end(), more.begin(), more.end());
      return run_lorapp(arguments).json();
    };
    const Json both = with({"--adapter", world.path("out"), "--compare"});
    CHECK(both.size() == 2);
    CHECK(both["base"]["tokens"] == with({})["tokens"]);
    CHECK(both["tuned"]["tokens"] == with({"--adapter", world.path("out")})["tokens"]);
    CHECK(both["base"].size() == 6);
  }

  TEST_CASE("generate: an adapter of another base name is used with a note") {
    const World world;
    REQUIRE(run_lorapp(world.finetune({"--quiet"})).status == 0);
    std::filesystem::copy(world.model(), world.path("copy"),
                          std::filesystem::copy_options::recursive);
    const Outcome outcome =
        run_lorapp({"generate", "--model", world.path("copy"), "--adapter", world.path("out"),
                    "--prompt", "x", "--max-new-tokens", "1"});
    CHECK(outcome.status == 0);
    CHECK(contains(outcome.err, "note: "));
    CHECK(contains(outcome.err, world.model()));
  }

  TEST_CASE("generate: Ctrl-C ends it with 130") {
    const World world;
    const Outcome outcome =
        run_lorapp(generate(world, {"--prompt", "x", "--max-new-tokens", "400", "--ignore-eos"}),
                   {.signal = SIGINT, .signal_when = "Loading"});
    CHECK(outcome.status == 130);
  }

  TEST_CASE("eval: the loss is a mean over scored tokens, and the perplexity its exponential") {
    const World world;
    const Json whole =
        run_lorapp({"eval", "--model", world.model(), "--data", world.data(), "--json"}).json();
    CHECK(whole.size() == 4);
    CHECK(whole["examples"] == 8);
    CHECK(whole["perplexity"].get<double>() ==
          doctest::Approx(std::exp(whole["loss"].get<double>())));
    const auto part = [&](const char* option, const char* count) {
      return run_lorapp({"eval", "--model", world.model(), "--data", world.data(), option, count,
                         "--json"})
          .json();
    };
    const Json first = part("--take", "3");
    const Json rest = part("--skip", "3");
    CHECK(first["examples"] == 3);
    CHECK(rest["examples"] == 5);
    const double tokens = first["tokens"].get<double>() + rest["tokens"].get<double>();
    CHECK(whole["tokens"].get<double>() == tokens);
    const double mean = (first["loss"].get<double>() * first["tokens"].get<double>() +
                         rest["loss"].get<double>() * rest["tokens"].get<double>()) /
                        tokens;
    CHECK(whole["loss"].get<double>() == doctest::Approx(mean));
    const Json response = run_lorapp({"eval", "--model", world.model(), "--data", world.data(),
                                      "--no-train-on-inputs", "--json"})
                              .json();
    CHECK(response["tokens"] < whole["tokens"]);
  }

  TEST_CASE("eval: --generate compares the first rows' answers with their responses") {
    const World world;
    const Json result = run_lorapp({"eval", "--model", world.model(), "--data", world.data(),
                                    "--generate", "2", "--json"})
                            .json();
    CHECK(result["generated"] == 2);
    CHECK(result["exact_match"].get<double>() >= 0);
    CHECK(result["token_f1"].get<double>() <= 1);
    const std::string texts = world.folder().write("text.jsonl", R"({"text": "One two"})").string();
    const Outcome refused =
        run_lorapp({"eval", "--model", world.model(), "--data", texts, "--generate", "1"});
    CHECK(refused.status == 1);
    CHECK(contains(refused.err, "plain text"));
  }
}
