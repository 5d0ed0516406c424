// The small world's tables, as text that a reader can check line by line.
// Rows are parsed by world.cpp; the format of each table stands above it in tables_*.cpp.
#pragma once

#include <string>
#include <vector>

namespace quickstart {

/// One kind of knowledge and its wordings: sentences that state a fact, questions that ask for it.
struct Relation {
  std::string name;
  std::vector<std::string> sentences;
  std::vector<std::string> questions;
};

extern const char* const kCountries;
extern const char* const kAnimals;
extern const char* const kOpposites;
extern const char* const kColours;
extern const char* const kPastTenses;
extern const char* const kPlurals;
extern const char* const kElements;
extern const char* const kCounterparts;

/// Every relation once, in the order in which world.cpp numbers them.
const std::vector<Relation>& relations();

}  // namespace quickstart
