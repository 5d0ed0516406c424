// Real files: Mistral's tokenizer, the Dolly rows, an Alpaca file. Skipped, with a message, where
// they are absent.
#include <lorapp/data/batch.hpp>
#include <lorapp/data/dolly.hpp>
#include <lorapp/data/labels.hpp>

#include "data_support.hpp"
#include "support/shared_data.hpp"

#include <doctest/doctest.h>

#include <sentencepiece_processor.h>

using namespace lorapp;
using lorapp::test::shared_data;
using lorapp::test::shared_data_missing;

namespace {

const Tokenizer& mistral() {
  static const Tokenizer value =
      Tokenizer::from_pretrained(shared_data("tokenizers/mistral-v1").value());
  return value;
}

const DollyDataset& dolly() {
  static const DollyDataset value =
      DollyDataset::from_file(shared_data("dolly/databricks-dolly-15k.jsonl").value());
  return value;
}

uint64_t fnv1a(uint64_t hash, const std::vector<int64_t>& ids) {
  for (const int64_t id : ids) {
    for (int shift = 0; shift < 32; shift += 8)
      hash = (hash ^ ((static_cast<uint64_t>(id) >> shift) & 0xff)) * 0x100000001b3u;
  }
  return hash;
}

}  // namespace

TEST_SUITE("data") {
  TEST_CASE("real data: the Mistral tokenizer's special tokens and sizes") {
    if (shared_data_missing()) return;
    CHECK(mistral().vocab_size() == 32000);
    CHECK(mistral().bos_id() == 1);
    CHECK(mistral().eos_id() == 2);
    CHECK(mistral().unk_id() == 0);
    CHECK(mistral().pad_id() == 2);
    CHECK(mistral().add_bos());
    CHECK_FALSE(mistral().add_eos());
    CHECK(mistral().encode("Hello world") == std::vector<int64_t>{1, 22557, 1526});
    CHECK(mistral().encode_with_special("<s>x</s> y") == std::vector<int64_t>{1, 1, 28744, 2, 337});
    const Tokenizer stories = Tokenizer::from_pretrained(shared_data("models/stories260K").value());
    CHECK(stories.vocab_size() == 512);
    CHECK(stories.decode(stories.encode("Once upon a time")) == "Once upon a time");
  }

  TEST_CASE(
      "real data: 2000 Dolly rows have sentencepiece's ids, in C++ and in Python, and decode to "
      "themselves") {
    if (shared_data_missing()) return;
    sentencepiece::SentencePieceProcessor model;
    REQUIRE(model.Load(shared_data("tokenizers/mistral-v1/tokenizer.model").value().string()).ok());
    const auto alpaca = PromptTemplate::alpaca();
    uint64_t hash = 0xcbf29ce484222325u;
    int differ = 0, changed = 0, badly_placed = 0;
    for (int64_t i = 0; i < 2000; ++i) {
      const RenderedPrompt prompt = alpaca.render(dolly()[i]);
      std::vector<int> own;
      REQUIRE(model.Encode(prompt.text, &own).ok());
      const auto encoding = mistral().encode_with_spans(prompt.text, false);
      differ += encoding.ids != std::vector<int64_t>(own.begin(), own.end());
      if (i % 10 == 0) differ += mistral().encode(prompt.text, false) != encoding.ids;
      changed += mistral().decode(encoding.ids) != prompt.text;
      std::size_t covered = 0;
      for (const auto& [begin, end] : encoding.spans) {
        badly_placed += begin != covered || end < begin;
        covered = end;
      }
      badly_placed += covered != prompt.text.size();
      hash = fnv1a(fnv1a(fnv1a(hash, {1}), encoding.ids), {2});
    }
    CHECK(differ == 0);
    CHECK(changed == 0);
    CHECK(badly_placed == 0);
    CHECK(hash == 0xef257441a0e2c01eu);  // make_goldens.py with the folder as its argument
  }

  TEST_CASE(
      "real data: 2500 Dolly rows have the Python package's ids by Mistral's tokenizer.json, and "
      "decode to themselves") {
    if (shared_data_missing()) return;
    const lorapp::test::TemporaryFolder folder;
    for (const char* name : {"tokenizer.json", "tokenizer_config.json"}) {
      data_test::fs::copy_file(shared_data("tokenizers/mistral-v1").value() / name, folder / name);
    }
    const Tokenizer t = Tokenizer::from_pretrained(folder.path());
    CHECK(t.vocab_size() == 32000);
    CHECK(t.add_bos());
    CHECK(t.encode("Hello world") == mistral().encode("Hello world"));
    uint64_t hash = 0xcbf29ce484222325u;
    int changed = 0, badly_placed = 0;
    for (int64_t i = 0; i < 2500; ++i) {
      const Instruction& row = dolly()[i];
      for (const std::string& text : {row.instruction, row.context, row.response}) {
        const auto encoding = t.encode_with_spans(text, false);
        hash = fnv1a(hash, encoding.ids);
        // Decoding drops a first space, whether encoding put it there or found it.
        const std::string back = t.decode(encoding.ids);
        changed += back != text && " " + back != text;
        std::size_t covered = 0;
        for (const auto& [begin, end] : encoding.spans) {
          badly_placed += begin != covered || end < begin;
          covered = end;
        }
        badly_placed += covered != text.size();
      }
    }
    CHECK(changed == 0);
    CHECK(badly_placed == 0);
    CHECK(hash == 0x4afdb35608b545a9u);  // make_tokenizer_json.py with the folder as its argument
  }

  TEST_CASE("real data: the Dolly file has 15015 rows, and tokenizes whole with either loss") {
    if (shared_data_missing()) return;
    CHECK(dolly().size() == 15015);
    const auto whole =
        dolly().tokenize(mistral(), PromptTemplate::alpaca(), {.max_length = 1 << 20});
    CHECK(whole.num_tokens() == 3605980);
    CHECK(whole.statistics().scored_tokens == 3605980 - 15015);
    CHECK(whole.statistics().cut_examples == 0);
    const auto first = dolly().take(1000).tokenize(mistral(), PromptTemplate::alpaca());
    CHECK(first.size() == 1000);
    CHECK(first.statistics().longest == 1024);
    CHECK(first.statistics().cut_examples > 0);

    const auto rows = dolly().take(300);
    const auto responses = rows.tokenize(mistral(), PromptTemplate::alpaca(),
                                         {.max_length = 1 << 20, .train_on_inputs = false});
    int wrong = 0;
    for (int64_t i = 0; i < rows.size(); ++i) {
      std::vector<int64_t> scored;
      for (const int64_t label : responses.get(i).labels) {
        if (label != kIgnoreLabel) scored.push_back(label);
      }
      wrong += scored.back() != 2;
      // The prompt ends in a line end, which no token shares with the response; a response's own
      // first space may be dropped as the one that decoding drops.
      const std::string text = mistral().decode(scored);
      const std::string& want = rows[i].response;
      wrong += text != want && !(want.starts_with(' ') && want.substr(1) == text);
    }
    CHECK(wrong == 0);
  }

  TEST_CASE("real data: chats have the ids and masks of transformers with Mistral's tokenizer") {
    if (shared_data_missing()) return;
    const std::vector<ChatMessage> chat = {
        {.role = "system", .content = "Be short."},
        {.role = "user", .content = "Name a river in  Europe?"},
        {.role = "assistant", .content = "The Elbe — naïve 日本."},
        {.role = "user", .content = "Why?"},
        {.role = "assistant", .content = "It flows."}};
    const auto check = [&](const char* name, const std::vector<int64_t>& ids, const char* mask) {
      CAPTURE(name);
      const RenderedChat rendered = ChatTemplate::built_in(name, mistral()).render(chat);
      const auto encoding = encode_chat(mistral(), rendered);
      CHECK(encoding.ids == ids);
      std::string found;
      for (const bool scored : answer_mask(mistral(), rendered, encoding))
        found += scored ? '1' : '0';
      CHECK(found == mask);
    };
    check("mistral-v1",
          {1,     28792, 16289, 28793, 1739,  2485,  28723, 13,    13,  952,   264,   7782,
           297,   28705, 3401,  28804, 733,   28748, 16289, 28793, 415, 1744,  1105,  1040,
           1879,  28920, 333,   28705, 29142, 29119, 28723, 2,     733, 16289, 28793, 4315,
           28804, 733,   28748, 16289, 28793, 661,   21142, 28723, 2},
          "000000000000000000001111111111110000000001111");
    check("alpaca", {1,     3574,  2485, 28723, 13,    13,    27332, 3133,  3112,  28747, 13,
                     952,   264,   7782, 297,   28705, 3401,  28804, 13,    13,    27332, 12107,
                     28747, 13,    1014, 1744,  1105,  1040,  1879,  28920, 333,   28705, 29142,
                     29119, 28723, 2,    13,    13,    27332, 3133,  3112,  28747, 13,    7638,
                     28804, 13,    13,   27332, 12107, 28747, 13,    1313,  21142, 28723, 2},
          "0000000000000000000000001111111111110000000000000001111");
  }

  TEST_CASE("real data: an array with categories and an Alpaca file read as they are") {
    if (shared_data_missing()) return;
    const auto twelve =
        DollyDataset::from_file(shared_data("dolly/dolly-12-rows-with-category.json").value());
    CHECK(twelve.size() == 12);
    CHECK(twelve[0].category.has_value());
    CHECK(twelve[0].instruction == dolly()[0].instruction);
    const auto alpaca = DollyDataset::from_file(shared_data("alpaca/alpaca_en_demo.json").value());
    CHECK(alpaca.size() == 999);
    CHECK(alpaca[0].instruction == "Describe a process of making crepes.");
    CHECK(alpaca.tokenize(mistral()).size() == 999);
  }

  TEST_CASE("real data: a batch of real examples holds each one's ids between its offsets") {
    if (shared_data_missing()) return;
    const auto examples = dolly().take(4).tokenize(mistral());
    const std::vector<const Example*> pointers = {&examples.get(0), &examples.get(1),
                                                  &examples.get(2), &examples.get(3)};
    const Batch batch = collate(pointers);
    CHECK(batch.num_tokens() == examples.num_tokens());
    CHECK(batch.num_labels == examples.statistics().scored_tokens);
    const int64_t* ids = batch.ids.const_data_ptr<int64_t>();
    for (int64_t b = 0; b < 4; ++b) {
      const auto from = batch.cu_seqlens[static_cast<std::size_t>(b)],
                 to = batch.cu_seqlens[static_cast<std::size_t>(b) + 1];
      CHECK(std::vector<int64_t>(ids + from, ids + to) == examples.get(b).ids);
    }
  }
}
