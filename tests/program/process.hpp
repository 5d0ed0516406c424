// Runs programs, and makes the small world that the tests run lorapp in.
#pragma once

#include "support/error_of.hpp"
#include "support/temporary_folder.hpp"

#include <nlohmann/json.hpp>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace lorapp::test {

using Arguments = std::vector<std::string>;
using Json = nlohmann::json;

/// How a program ended, and what it wrote.
struct Outcome {
  int status = -1;  ///< exit status; 1000 + the number of the signal that killed it
  std::string out;
  std::string err;

  /// stdout as the one JSON object it must be.
  Json json() const;
};

struct ProcessOptions {
  std::string input{};
  /// Bytes that a file may grow to, as if the disk were full; 0: any.
  std::uint64_t file_size_limit = 0;
  /// Where stdout goes; empty: into Outcome::out.
  std::string stdout_path{};
  /// Send this signal once `signal_when` is in stderr; 0: none.
  int signal = 0;
  std::string signal_when{};
};

Outcome run_process(const std::filesystem::path& program,
                    const Arguments& arguments,
                    const ProcessOptions& options = {});

/// The lorapp program.
Outcome run_lorapp(const Arguments& arguments, const ProcessOptions& options = {});

/// A folder with a small random model ("model"), data ("data.jsonl") and nothing else.
class World {
 public:
  World();

  const TemporaryFolder& folder() const { return folder_; }
  std::string path(std::string_view name) const { return (folder_ / name).string(); }
  std::string model() const { return path("model"); }
  std::string data() const { return path("data.jsonl"); }

  /// finetune on the world's data, two quick steps, into "out"; `more` comes behind.
  Arguments finetune(const Arguments& more = {}, const std::string& output = "out") const;

 private:
  TemporaryFolder folder_;
};

/// Names of everything below a folder, sorted.
std::vector<std::string> files_in(const std::filesystem::path& folder);

}  // namespace lorapp::test
