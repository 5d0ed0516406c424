// How the tables become facts, facts become text, and text becomes files.
#include "world.hpp"

#include <cctype>
#include <set>
#include <sstream>
#include <stdexcept>

namespace quickstart {
namespace {

std::vector<std::vector<std::string>> rows(const char* table, char separator) {
  std::vector<std::vector<std::string>> result;
  std::istringstream lines(table);
  for (std::string line; std::getline(lines, line);) {
    if (line.empty()) continue;
    std::vector<std::string> fields;
    std::istringstream parts(line);
    for (std::string field; std::getline(parts, field, separator);) fields.push_back(field);
    result.push_back(fields);
  }
  return result;
}

const Relation* relation(std::string_view name) {
  for (const Relation& r : relations()) {
    if (r.name == name) return &r;
  }
  throw std::logic_error("no relation is called " + std::string(name));
}

class FactList {
 public:
  void add(std::string_view name, const std::string& entity, const std::string& answer) {
    add(name, entity, answer, new_group());
  }
  void add(std::string_view name, const std::string& entity, const std::string& answer, int group) {
    if (answer != "-") facts_.push_back({relation(name), entity, answer, group});
  }
  int new_group() { return groups_++; }
  std::vector<Fact> take() { return std::move(facts_); }

 private:
  std::vector<Fact> facts_;
  int groups_ = 0;
};

void add_column(FactList& list, const char* table, std::size_t column, std::string_view name) {
  for (const auto& row : rows(table, '|')) list.add(name, row.at(0), row.at(column));
}

void add_opposites(FactList& list) {
  for (const auto& line : rows(kOpposites, '\n')) {
    const std::string& text = line.front();
    const std::size_t sign = text.find_first_of("=>");
    const std::string left = text.substr(0, sign), right = text.substr(sign + 1);
    const int group = list.new_group();
    list.add("opposite", left, right, group);
    if (text[sign] == '=') list.add("opposite", right, left, group);
  }
}

// The table of one operation; a pair and its mirror image are one group.
void add_arithmetic(
    FactList& list, std::string_view name, const std::string& word, int low, int high) {
  for (int a = low; a <= high; ++a) {
    for (int b = a; b <= high; ++b) {
      const int group = list.new_group();
      const std::string result = std::to_string(name == "sum" ? a + b : a * b);
      const std::string left = std::to_string(a), right = std::to_string(b);
      list.add(name, left + word + right, result, group);
      if (a != b) list.add(name, right + word + left, result, group);
    }
  }
}

std::vector<Fact> build_facts() {
  FactList list;
  add_column(list, kCountries, 1, "capital");
  add_column(list, kCountries, 2, "continent");
  add_column(list, kCountries, 3, "language");
  add_column(list, kCountries, 4, "currency");
  add_column(list, kAnimals, 1, "kind");
  add_column(list, kAnimals, 2, "young");
  add_column(list, kAnimals, 3, "sound");
  add_opposites(list);
  add_column(list, kColours, 1, "colour");
  add_column(list, kPastTenses, 1, "past tense");
  add_column(list, kPlurals, 1, "plural");
  add_column(list, kElements, 1, "symbol");
  for (const auto& row : rows(kCounterparts, '=')) list.add("counterpart", row.at(0), row.at(1));
  add_arithmetic(list, "sum", " plus ", 1, 7);
  add_arithmetic(list, "product", " times ", 2, 7);
  return list.take();
}

std::string with_article(const std::string& noun) {
  const bool vowel = std::string_view("aeiou").find(noun.front()) != std::string_view::npos;
  return (vowel ? "an " : "a ") + noun;
}

std::string capitalised(std::string text) {
  text.front() = static_cast<char>(std::toupper(static_cast<unsigned char>(text.front())));
  return text;
}

// A layout of question/answer text: what stands before the list, and one entry; {q} {a} {i}, and
// {r} for the remark that may come between question and answer.
struct Layout {
  const char* title;
  const char* entry;
};
const std::vector<Layout> kLayouts = {
    {"", "Q: {q}\n{r}A: {a}\n"},
    {"", "Question: {q} Answer: {a}\n"},
    {"", "{q}\n{r}{a}\n"},
    {"Quiz\n", "{i}. {q}\n{r}{a}\n"},
    {"", "Teacher: {q}\n{r}Pupil: {a}\n\n"},
    {"", "Question {i}:\n{q}\n\n{r}Answer {i}:\n{a}\n\n"},
    {"Read each question, then the answer below it.\n\n",
     "{q}\n\n{r}The answer in short:\n{a}\n\n"},
    {"", "- {q} - {a}\n"},
};

// Remarks of many lengths keep the model from finding the question by its distance from the answer.
// They come late: a model that meets them before it knows the facts learns those far more slowly.
const std::vector<std::string> kRemarks = {
    "Think.\n",
    "One word, please.\n",
    "This one is easy.\n\n",
    "Now comes the answer.\n",
    "Take your time and then say it.\n",
    "There is only one right answer here.\n\n",
    "Who knows it? It is in every school book.\n",
    "Write the answer on the next line and nothing else.\n",
    "We have talked about it before, so it should not be hard to say.\n\n",
    "The next line holds what belongs there; look at the question once more, then read on.\n",
};

std::string fill(std::string pattern,
                 const std::vector<std::pair<std::string, std::string>>& values) {
  for (const auto& [key, value] : values) {
    for (std::size_t at = 0; (at = pattern.find(key, at)) != std::string::npos;
         at += value.size()) {
      pattern.replace(at, key.size(), value);
    }
  }
  return pattern;
}

std::string entry(const Layout& layout,
                  std::size_t number,
                  const std::string& question,
                  const std::string& remark,
                  const std::string& answer) {
  return fill(
      layout.entry,
      {{"{i}", std::to_string(number)}, {"{r}", remark}, {"{q}", question}, {"{a}", answer}});
}

std::string question_list(Random& random, const std::vector<const Fact*>& chosen, bool remarks) {
  const Layout& layout = random.pick(kLayouts);
  std::string text = layout.title;
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    const Fact& fact = *chosen[i];
    const std::string question = phrase(random.pick(fact.relation->questions), fact);
    const std::string remark = remarks && random.below(5) < 2 ? random.pick(kRemarks) : "";
    text += entry(layout, i + 1, question, remark, fact.answer);
  }
  return text.substr(0, text.find_last_not_of('\n') + 1);
}

std::string statement(Random& random, const std::vector<const Fact*>& chosen) {
  std::string text;
  for (const Fact* fact : chosen) {
    if (!text.empty()) text += ' ';
    text += phrase(random.pick(fact->relation->sentences), *fact);
  }
  return text;
}

Question ask(Random& random, const Fact& fact, const std::string& wording) {
  static const std::vector<std::string> kHints = {
      "Answer with one word or name.", "A short answer is enough.", "This is part of a quiz."};
  Question question{&fact, phrase(wording, fact), "", fact.answer};
  if (random.below(4) == 0) question.context = random.pick(kHints);
  return question;
}

void append_json(std::string& out, const std::string& key, const std::string& value) {
  out += '"' + key + "\": \"";
  for (const char c : value) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  out += '"';
}

}  // namespace

std::uint64_t Random::next() {
  std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

std::size_t Random::below(std::size_t n) { return static_cast<std::size_t>(next() % n); }

const std::vector<Fact>& facts() {
  static const std::vector<Fact> kFacts = build_facts();
  return kFacts;
}

std::string phrase(const std::string& pattern, const Fact& fact) {
  return fill(pattern,
              {{"{e}", fact.entity},
               {"{n}", with_article(fact.entity)},
               {"{E}", capitalised(fact.entity)},
               {"{N}", capitalised(with_article(fact.entity))},
               {"{a}", fact.answer},
               {"{m}", with_article(fact.answer)},
               {"{A}", fact.relation->name == "symbol" ? fact.answer : capitalised(fact.answer)},
               {"{M}", capitalised(with_article(fact.answer))}});
}

std::vector<std::string> pretraining_documents(std::uint64_t seed, int rounds) {
  Random random(seed);
  std::vector<const Fact*> order;
  for (const Fact& fact : facts()) order.push_back(&fact);
  std::vector<std::string> documents;
  for (int round = 0; round < rounds; ++round) {
    random.shuffle(order);
    for (std::size_t at = 0; at < order.size();) {
      const std::size_t count = std::min<std::size_t>(2 + random.below(5), order.size() - at);
      const std::vector<const Fact*> chosen(
          order.begin() + static_cast<std::ptrdiff_t>(at),
          order.begin() + static_cast<std::ptrdiff_t>(at + count));
      const bool asked = random.below(100) < 65;
      const bool remarks = round >= rounds / 2;
      documents.push_back(asked ? question_list(random, chosen, remarks)
                                : statement(random, chosen));
      at += count;
    }
  }
  return documents;
}

Split split_world(std::uint64_t seed) {
  Random random(seed);
  const std::vector<Fact>& all = facts();
  std::vector<int> groups(static_cast<std::size_t>(all.back().group + 1));
  for (std::size_t i = 0; i < groups.size(); ++i) groups[i] = static_cast<int>(i);
  random.shuffle(groups);
  const std::set<int> tuned(groups.begin(),
                            groups.begin() + static_cast<std::ptrdiff_t>(groups.size() / 2));
  Split split;
  for (const Fact& fact : all)
    (tuned.count(fact.group) ? split.tuning : split.held_out).push_back(&fact);
  return split;
}

std::vector<Question> tuning_questions(const Split& split, std::uint64_t seed) {
  Random random(seed);
  std::vector<Question> questions;
  for (const Fact* fact : split.tuning) {
    for (const std::string& wording : fact->relation->questions) {
      questions.push_back(ask(random, *fact, wording));
    }
  }
  random.shuffle(questions);
  return questions;
}

std::vector<Question> held_out_questions(const Split& split, std::uint64_t seed) {
  Random random(seed);
  std::vector<Question> questions;
  for (const Fact* fact : split.held_out) {
    questions.push_back(ask(random, *fact, random.pick(fact->relation->questions)));
  }
  random.shuffle(questions);
  return questions;
}

std::vector<Question> with_shuffled_answers(std::vector<Question> questions, std::uint64_t seed) {
  Random random(seed);
  std::vector<std::string> answers;
  for (const Question& question : questions) answers.push_back(question.answer);
  random.shuffle(answers);
  for (std::size_t i = 0; i < questions.size(); ++i) questions[i].answer = answers[i];
  return questions;
}

std::string dolly_jsonl(const std::vector<Question>& questions) {
  std::string out;
  for (const Question& question : questions) {
    out += '{';
    append_json(out, "instruction", question.instruction);
    out += ", ";
    append_json(out, "context", question.context);
    out += ", ";
    append_json(out, "response", question.answer);
    out += ", ";
    append_json(out, "category", question.context.empty() ? "open_qa" : "closed_qa");
    out += "}\n";
  }
  return out;
}

std::string few_shot_prompt(const Question& question,
                            const std::vector<Question>& examples,
                            std::uint64_t seed) {
  Random random(seed);
  const Layout& layout = kLayouts.front();
  std::string text;
  for (std::size_t i = 0; i < 3; ++i) {
    const Question& example = random.pick(examples);
    text += entry(layout, i + 1, example.instruction, "", example.answer);
  }
  const std::string last = entry(layout, 4, question.instruction, "", "");
  return text + last.substr(0, last.find_last_not_of(" \n") + 1);
}

}  // namespace quickstart
