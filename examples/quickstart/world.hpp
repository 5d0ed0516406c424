// The quickstart's world: true facts, the plain text a base model learns them from, and a tuning
// file about half of them. Everything follows from a seed: same seed, same bytes, on every
// platform.
#pragma once

#include "facts.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace quickstart {

/// One thing that is true. Facts of one `group` say the same thing (hot/cold and cold/hot, 2 plus 3
/// and 3 plus 2), so a split never parts them.
struct Fact {
  const Relation* relation;
  std::string entity;
  std::string answer;
  int group;
};

/// A question as it is put to a model: the wording, an optional hint, and the one right answer.
struct Question {
  const Fact* fact;
  std::string instruction;
  std::string context;
  std::string answer;
};

/// A stream of numbers that is the same everywhere (splitmix64); std's distributions are not.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next();
  std::size_t below(std::size_t n);  ///< uniform in [0, n), n > 0
  template <class T>
  const T& pick(const std::vector<T>& items) {
    return items[below(items.size())];
  }
  template <class T>
  void shuffle(std::vector<T>& items) {
    for (std::size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[below(i)]);
  }

 private:
  std::uint64_t state_;
};

/// Every fact, table by table.
const std::vector<Fact>& facts();

/// `pattern` with {e} {n} {E} {N} replaced by the entity, {a} {m} {A} {M} by the answer.
std::string phrase(const std::string& pattern, const Fact& fact);

/// Pretraining text: each round tells every fact once, in shuffled order, in lists of two to six
/// questions with answers (65 % of the documents, eight layouts, none of them the Alpaca template)
/// or in sentences. In the later half of the rounds a remark may come between question and answer.
/// The order matters: read it from the first document to the last.
std::vector<std::string> pretraining_documents(std::uint64_t seed, int rounds);

/// The two halves of the world, parted at random by group.
struct Split {
  std::vector<const Fact*> tuning;
  std::vector<const Fact*> held_out;
};
Split split_world(std::uint64_t seed);

/// Every wording about every tuning fact, some with a hint as context, in shuffled order.
std::vector<Question> tuning_questions(const Split& split, std::uint64_t seed);

/// One question about every held-out fact, in shuffled order.
std::vector<Question> held_out_questions(const Split& split, std::uint64_t seed);

/// The same questions with their answers dealt out anew at random: the control that tells learning
/// how to answer from learning the answers.
std::vector<Question> with_shuffled_answers(std::vector<Question> questions, std::uint64_t seed);

/// Dolly's JSON Lines: {"instruction", "context", "response", "category"} a row.
std::string dolly_jsonl(const std::vector<Question>& questions);

/// The untuned base's own way of being asked: three answered questions about `examples`, then the
/// question, in one of the pretraining layouts; the answer is the rest of the line.
std::string few_shot_prompt(const Question& question,
                            const std::vector<Question>& examples,
                            std::uint64_t seed);

}  // namespace quickstart
