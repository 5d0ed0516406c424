// Where output goes: results to stdout, everything that a person reads to stderr.
// With --json stdout gets exactly one JSON object.
#pragma once

#include <nlohmann/json.hpp>

#include <ostream>
#include <string_view>

namespace lorapp::program {

using Json = nlohmann::ordered_json;

class Console {
 public:
  Console(bool json, bool quiet) : json_(json), quiet_(quiet) {}

  bool json() const { return json_; }
  bool quiet() const { return quiet_; }

  /// A stream for progress, stderr; nowhere with --quiet.
  std::ostream& progress() const;
  /// One line of progress.
  void say(std::string_view line) const { progress() << line << '\n' << std::flush; }
  /// Something the user may not expect.
  void note(std::string_view text) const { progress() << "note: " << text << '\n' << std::flush; }

  /// The result of the job: one JSON object on a line, or a line "name: value" for each field.
  void result(const Json& object) const;

 private:
  bool json_;
  bool quiet_;
};

/// One line of JSON. Bytes that are not UTF-8 become U+FFFD, as JSON has no way to hold them.
std::string to_line(const Json& value);

}  // namespace lorapp::program
