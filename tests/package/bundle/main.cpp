// Something of each library that a bundle holds.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <string>

TEST_CASE("each library answers") {
  CHECK(fmt::format("{:03}", 7) == "007");
  CHECK(nlohmann::json::parse("[1, 2]").size() == 2);
  CLI::App app;
  int n = 0;
  app.add_option("--n", n);
  app.parse("--n 3");
  CHECK(n == 3);
  sentencepiece::SentencePieceProcessor processor;
  CHECK_FALSE(processor.Load("no such file").ok());
  CHECK_FALSE(sentencepiece::SentencePieceTrainer::Train("--no_such_flag=1").ok());
}

int main(int argc, char** argv) { return doctest::Context(argc, argv).run(); }
