// What the cases of bench_report share: options "key=value", timing, results as JSON lines.
#pragma once

#include <lorapp/error.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace lorapp::bench {

/// The words "key=value" behind a case's name.
class Options {
 public:
  Options(int argc, char** argv, int first) {
    for (int i = first; i < argc; ++i) {
      const std::string word = argv[i];
      const std::size_t equals = word.find('=');
      LORAPP_CHECK(equals != std::string::npos && equals > 0, "bench_report", "\"", word,
                   "\" is no option; expected key=value");
      values_[word.substr(0, equals)] = word.substr(equals + 1);
    }
  }

  /// Error where there is no such option.
  std::string text(const std::string& key) const {
    used_.insert(key);
    const auto found = values_.find(key);
    LORAPP_CHECK(found != values_.end(), "bench_report", "the option ", key, "=… is missing");
    return found->second;
  }
  std::string text(const std::string& key, const std::string& otherwise) const {
    used_.insert(key);
    const auto found = values_.find(key);
    return found != values_.end() ? found->second : otherwise;
  }
  std::int64_t number(const std::string& key, std::int64_t otherwise) const {
    return numbers(key, {otherwise}).front();
  }
  /// "a,b,c"
  std::vector<std::int64_t> numbers(const std::string& key,
                                    std::vector<std::int64_t> otherwise) const {
    const std::string given = text(key, "");
    if (given.empty()) return otherwise;
    std::vector<std::int64_t> result;
    std::istringstream words(given);
    for (std::string word; std::getline(words, word, ',');) {
      std::size_t end = 0;
      std::int64_t value = 0;
      try {
        value = std::stoll(word, &end);
      } catch (const std::exception&) {
        end = 0;
      }
      LORAPP_CHECK(end > 0 && end == word.size() && value > 0, "bench_report", key, "=", given,
                   ": expected whole numbers above 0, with commas between them");
      result.push_back(value);
    }
    return result;
  }

  /// Error for an option that no one has asked for.
  void check_all_used() const {
    for (const auto& [key, value] : values_) {
      LORAPP_CHECK(used_.contains(key), "bench_report", "this case has no option ", key);
    }
  }

 private:
  std::map<std::string, std::string> values_;
  mutable std::set<std::string> used_;
};

/// One result, on stdout.
inline void print(const std::string& name, double value, const char* unit) {
  std::printf("{\"name\": \"%s\", \"value\": %.8g, \"unit\": \"%s\"}\n", name.c_str(), value, unit);
  std::fflush(stdout);
}

inline double median(std::vector<double> values) {
  LORAPP_CHECK(!values.empty(), "bench_report", "nothing was measured");
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 != 0 ? values[half] : (values[half - 1] + values[half]) / 2;
}

class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  }

 private:
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

}  // namespace lorapp::bench
