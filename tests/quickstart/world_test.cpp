// The quickstart's world: its facts, its split, its files, all without a model.
#include <quickstart/world.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <set>

using namespace quickstart;

TEST_SUITE("quickstart") {
  TEST_CASE("no entity of a relation has two answers") {
    std::map<std::pair<std::string, std::string>, std::string> seen;
    for (const Fact& fact : facts()) {
      const auto key = std::pair(fact.relation->name, fact.entity);
      const bool first = seen.emplace(key, fact.answer).second;
      CHECK_MESSAGE(first, fact.relation->name << " of " << fact.entity << " is stated twice");
      CHECK_FALSE(fact.entity.empty());
      CHECK_FALSE(fact.answer.empty());
    }
    CHECK(facts().size() >= 900);
    CHECK(relations().size() >= 14);
  }

  TEST_CASE("every relation has facts, four sentences and four questions") {
    std::map<std::string, int> count;
    for (const Fact& fact : facts()) ++count[fact.relation->name];
    for (const Relation& relation : relations()) {
      CAPTURE(relation.name);
      CHECK(count[relation.name] >= 20);
      CHECK(relation.sentences.size() == 4);
      CHECK(relation.questions.size() == 4);
    }
  }

  TEST_CASE("no question gives its own answer away and no placeholder is left over") {
    for (const Fact& fact : facts()) {
      for (const std::string& wording : fact.relation->questions) {
        const std::string text = phrase(wording, fact);
        CHECK(text.find_first_of("{}") == std::string::npos);
        CHECK(wording.find("{a}") == std::string::npos);
        CHECK(wording.find("{m}") == std::string::npos);
      }
      for (const std::string& wording : fact.relation->sentences) {
        CHECK(phrase(wording, fact).find_first_of("{}") == std::string::npos);
      }
    }
  }

  TEST_CASE("two questions of different facts are never the same text") {
    std::map<std::string, const Fact*> seen;
    for (const Fact& fact : facts()) {
      for (const std::string& wording : fact.relation->questions) {
        const auto entry = seen.emplace(phrase(wording, fact), &fact);
        CHECK_MESSAGE(entry.second, entry.first->first << " is asked about two facts");
      }
    }
  }

  TEST_CASE("an opposite's opposite is in the same half, and so is a sum's mirror image") {
    std::map<std::pair<std::string, std::string>, const Fact*> by_entity;
    for (const Fact& fact : facts()) by_entity[{fact.relation->name, fact.entity}] = &fact;
    const auto group = [&](const char* relation, const char* entity) {
      return by_entity.at({relation, entity})->group;
    };
    CHECK(group("opposite", "hot") == group("opposite", "cold"));
    CHECK(group("sum", "2 plus 5") == group("sum", "5 plus 2"));
    CHECK(group("sum", "2 plus 5") != group("sum", "2 plus 6"));
    CHECK(by_entity.at({"sum", "2 plus 5"})->answer == "7");
    CHECK(by_entity.at({"product", "6 times 7"})->answer == "42");
    CHECK(by_entity.at({"capital", "France"})->answer == "Paris");
    CHECK(by_entity.at({"symbol", "iron"})->answer == "Fe");
  }

  TEST_CASE("no (entity, relation) of a held-out question is in the tuning file") {
    for (const std::uint64_t seed : {1u, 2u, 3u}) {
      const Split split = split_world(seed);
      CHECK(split.tuning.size() + split.held_out.size() == facts().size());
      std::set<std::pair<std::string, std::string>> tuned;
      std::set<int> tuned_groups;
      for (const Question& question : tuning_questions(split, seed)) {
        tuned.emplace(question.fact->relation->name, question.fact->entity);
        tuned_groups.insert(question.fact->group);
      }
      const std::vector<Question> held_out = held_out_questions(split, seed);
      CHECK(held_out.size() >= 200);
      for (const Question& question : held_out) {
        CHECK_FALSE(tuned.count({question.fact->relation->name, question.fact->entity}));
        CHECK_FALSE(tuned_groups.count(question.fact->group));
      }
    }
  }

  TEST_CASE("the same seed gives the same bytes, another seed gives others") {
    const auto text = [](std::uint64_t seed) {
      std::string all;
      for (const std::string& document : pretraining_documents(seed, 1)) all += document + '\n';
      return all + dolly_jsonl(tuning_questions(split_world(seed), seed));
    };
    CHECK(text(1) == text(1));
    CHECK(text(1) != text(2));
    // The first numbers of splitmix64 from seed 1, computed apart from this program.
    Random random(1);
    CHECK(random.next() == 0x910a2dec89025cc1u);
    CHECK(random.next() == 0xbeeb8da1658eec67u);
  }

  TEST_CASE(
      "each round of the pretraining text tells every fact once, two thirds of it as questions") {
    const std::vector<std::string> documents = pretraining_documents(7, 10);
    std::size_t asked = 0;
    for (const std::string& document : documents) {
      CHECK(document.find("###") == std::string::npos);
      CHECK(document.find("instruction") == std::string::npos);
      const bool question = document.find('?') != std::string::npos ||
                            document.find("Name the ") != std::string::npos;
      asked += question ? 1 : 0;
    }
    const double share = static_cast<double>(asked) / static_cast<double>(documents.size());
    CHECK(share > 0.60);
    CHECK(share < 0.70);
  }

  TEST_CASE("shuffling answers keeps the questions and the bag of answers") {
    const std::vector<Question> questions = tuning_questions(split_world(1), 1);
    const std::vector<Question> shuffled = with_shuffled_answers(questions, 5);
    std::multiset<std::string> before, after;
    std::size_t same = 0;
    REQUIRE(questions.size() == shuffled.size());
    for (std::size_t i = 0; i < questions.size(); ++i) {
      CHECK(questions[i].instruction == shuffled[i].instruction);
      before.insert(questions[i].answer);
      after.insert(shuffled[i].answer);
      same += questions[i].answer == shuffled[i].answer ? 1 : 0;
    }
    CHECK(before == after);
    CHECK(same < questions.size() / 10);
  }

  TEST_CASE("a few-shot prompt holds three answered questions and ends where the answer begins") {
    const Split split = split_world(1);
    const std::vector<Question> examples = tuning_questions(split, 1);
    const Question question = held_out_questions(split, 1).front();
    const std::string prompt = few_shot_prompt(question, examples, 3);
    CHECK(std::count(prompt.begin(), prompt.end(), '\n') == 7);
    CHECK(prompt.ends_with("Q: " + question.instruction + "\nA:"));
    CHECK(prompt.find("###") == std::string::npos);
  }
}
