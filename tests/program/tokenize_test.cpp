// lorapp tokenize and inspect.
#include "process.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace lorapp::test;

TEST_SUITE("program") {
  TEST_CASE("tokenize: text, stdin and decode agree, byte for byte") {
    const World world;
    const std::string text = "  The capital\n\nof naïve 日本 </s>\t\n";
    const Arguments base = {"tokenize", "--model", world.model(), "--json"};
    const auto with = [&](Arguments more) {
      more.insert(more.begin(), base.begin(), base.end());
      return more;
    };
    const Json given = run_lorapp(with({"--text", text})).json();
    const Json piped = run_lorapp(base, {.input = text}).json();
    CHECK(given["text"] == text);
    CHECK(given == piped);
    CHECK(given["tokens"].front() == 1);

    const Json back = run_lorapp(with({"--decode", "--text", given["tokens"].dump()})).json();
    CHECK(back["text"] == text);
    CHECK(back["tokens"] == given["tokens"]);

    const Json bare = run_lorapp(with({"--no-special-tokens", "--text", text})).json();
    CHECK(bare["tokens"].size() + 1 == given["tokens"].size());
    const Json parsed = run_lorapp(with({"--parse-special", "--text", "a</s>"})).json();
    CHECK(parsed["tokens"].back() == 2);
    CHECK(run_lorapp(with({"--text", ""})).json()["tokens"] == Json({1}));
    CHECK(run_lorapp(base, {.input = ""}).json()["tokens"] == Json({1}));
  }

  TEST_CASE("tokenize: without --json ids are words on a line, and decoding prints the text") {
    const World world;
    const std::string ids =
        run_lorapp({"tokenize", "--model", world.model(), "--text", "The dog"}).out;
    CHECK(ids.starts_with("1 "));
    CHECK(ids.ends_with("\n"));
    const Outcome text =
        run_lorapp({"tokenize", "--model", world.model(), "--decode"}, {.input = ids});
    CHECK(text.out == "The dog\n");
  }

  TEST_CASE("tokenize: an array of texts becomes an array of arrays, and back") {
    const World world;
    const std::string texts = R"(["The dog", "", "[x, y] \u00e9"])";
    const std::string file = world.folder().write("texts.json", texts).string();
    const Outcome plain = run_lorapp({"tokenize", "--model", world.model(), "--data", file});
    const Json arrays = Json::parse(plain.out);
    REQUIRE(arrays.size() == 3);
    CHECK(arrays[1] == Json({1}));
    const std::string ids = world.folder().write("ids.json", plain.out).string();
    const Outcome back =
        run_lorapp({"tokenize", "--model", world.model(), "--data", ids, "--decode"});
    CHECK(Json::parse(back.out) == Json::parse(texts));
    const Json both =
        run_lorapp({"tokenize", "--model", world.model(), "--data", file, "--json"}).json();
    CHECK(both["tokens"] == arrays);
    CHECK(both["text"] == Json::parse(texts));
  }

  TEST_CASE("tokenize: needs the tokenizer's files alone") {
    const World world;
    std::filesystem::remove(world.folder() / "model/config.json");
    std::filesystem::remove(world.folder() / "model/model.safetensors");
    CHECK(run_lorapp({"tokenize", "--model", world.model(), "--text", "x"}).status == 0);
  }

  TEST_CASE("tokenize: wrong input is status 1 with the file and the element") {
    const World world;
    const auto fails_with = [&](const Arguments& more, const std::string& part) {
      Arguments arguments = {"tokenize", "--model", world.model()};
      arguments.insert(arguments.end(), more.begin(), more.end());
      const Outcome outcome = run_lorapp(arguments);
      CAPTURE(outcome.err);
      CHECK(outcome.status == 1);
      CHECK(outcome.out.empty());
      CHECK(contains(outcome.err, part));
    };
    fails_with({"--data", world.path("absent.json")}, "absent.json");
    fails_with({"--data", world.folder().write("a.json", "{").string()}, "a.json");
    fails_with({"--data", world.folder().write("b.json", "{}").string()}, "array");
    fails_with({"--data", world.folder().write("c.json", R"(["x", 3])").string()}, "element 2");
    fails_with({"--data", world.model()}, "is a folder");
    fails_with({"--decode", "--text", "1 two"}, "two");
    fails_with({"--decode", "--text", "100000"}, "100000");
  }

  TEST_CASE("inspect: a model folder's parameters are those of its tensors") {
    const World world;
    const Json model = run_lorapp({"inspect", world.model(), "--json"}).json();
    CHECK(model["kind"] == "model");
    CHECK(model["parameters"] == model["weights"]["elements"]);
    CHECK(model["weights"]["dtypes"].size() == 1);
    // q: 32 -> 32, v: 32 -> 16, two layers, rank 16.
    CHECK(model["lora"]["trainable_params"] == 16 * 2 * (32 + 32 + 32 + 16));
    CHECK(run_lorapp({"inspect", "--model", world.model(), "--json"}).json() == model);
  }

  TEST_CASE("inspect: a target that matches no layer is an error, as in finetune") {
    const World world;
    const Outcome outcome = run_lorapp({"inspect", world.model(), "--target-modules", "q_prj"});
    CHECK(outcome.status == 1);
    CHECK(contains(outcome.err, "q_prj"));
  }

  TEST_CASE("inspect: an adapter folder and a safetensors file") {
    const World world;
    REQUIRE(run_lorapp(world.finetune({"--quiet"})).status == 0);
    const Json adapter = run_lorapp({"inspect", world.path("out"), "--json"}).json();
    CHECK(adapter["kind"] == "adapter");
    CHECK(adapter["r"] == 4);
    CHECK(adapter["base_model_name_or_path"] == world.model());
    CHECK(adapter["parameters"] == 4 * 2 * (32 + 32 + 32 + 16));
    const Json file =
        run_lorapp({"inspect", world.path("out/adapter_model.safetensors"), "--json"}).json();
    CHECK(file["kind"] == "safetensors");
    CHECK(file["tensors"] == file["contents"].size());
    CHECK(
        contains(file["contents"][0]["name"].get<std::string>(), "base_model.model.model.layers."));
    CHECK(run_lorapp({"inspect", world.path("")}).status == 1);
    CHECK(run_lorapp({"inspect", world.data()}).status == 1);
  }
}
