#include "process.hpp"

#include "support/tiny_tokenizer.hpp"

#include <lorapp/nn/causal_lm.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <optional>
#include <thread>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

namespace lorapp::test {

namespace fs = std::filesystem;

namespace {

constexpr std::chrono::minutes kPatience{5};

void redirect(const std::string& path, int flags, int to) {
  const int from = open(path.c_str(), flags, 0600);
  if (from < 0 || dup2(from, to) < 0) _exit(126);
}

[[noreturn]] void become(const fs::path& program,
                         const Arguments& arguments,
                         const ProcessOptions& options,
                         const TemporaryFolder& folder) {
  redirect((folder / "in").string(), O_RDONLY, STDIN_FILENO);
  constexpr int kCreate = O_WRONLY | O_CREAT | O_TRUNC;
  const std::string out =
      options.stdout_path.empty() ? (folder / "out").string() : options.stdout_path;
  redirect(out, kCreate, STDOUT_FILENO);
  redirect((folder / "err").string(), kCreate, STDERR_FILENO);
  if (options.file_size_limit > 0) {
    signal(SIGXFSZ, SIG_DFL);  // as a shell starts it: the program has to survive the signal
    const rlimit limit{options.file_size_limit, options.file_size_limit};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  setenv("HF_HUB_CACHE", (folder / "no-cache").c_str(), 1);
  setenv("HF_HUB_OFFLINE", "1", 1);
  std::vector<char*> argv = {const_cast<char*>(program.c_str())};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  execv(program.c_str(), argv.data());
  _exit(127);
}

/// The wait status of a child that has ended.
std::optional<int> poll(pid_t child) {
  int status = 0;
  return waitpid(child, &status, WNOHANG) == child ? std::optional(status) : std::nullopt;
}

}  // namespace

Json Outcome::json() const {
  INFO("stdout: ", out);
  INFO("stderr: ", err);
  REQUIRE(Json::accept(out));
  Json value = Json::parse(out);
  REQUIRE(value.is_object());
  return value;
}

Outcome run_process(const fs::path& program,
                    const Arguments& arguments,
                    const ProcessOptions& options) {
  const TemporaryFolder folder;
  folder.write("in", options.input);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) become(program, arguments, options, folder);

  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  bool sent = options.signal == 0;
  std::optional<int> status;
  while (!(status = poll(child))) {
    if (!sent && contains(read_file(folder / "err"), options.signal_when)) {
      kill(child, options.signal);
      sent = true;
    }
    if (std::chrono::steady_clock::now() > deadline) {
      kill(child, SIGKILL);
      waitpid(child, nullptr, 0);
      FAIL("the program did not end; stderr: ", read_file(folder / "err"));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  CHECK(sent);
  return {.status = WIFEXITED(*status) ? WEXITSTATUS(*status) : 1000 + WTERMSIG(*status),
          .out = options.stdout_path.empty() ? read_file(folder / "out") : std::string{},
          .err = read_file(folder / "err")};
}

Outcome run_lorapp(const Arguments& arguments, const ProcessOptions& options) {
  return run_process(LORAPP_PROGRAM, arguments, options);
}

World::World() {
  fs::create_directory(folder_ / "model");
  const ModelConfig config{.vocab_size = kTinyVocabSize,
                           .hidden_size = 32,
                           .intermediate_size = 48,
                           .num_hidden_layers = 2,
                           .num_attention_heads = 4,
                           .num_key_value_heads = 2,
                           .max_position_embeddings = 512,
                           .initializer_range = 0.2,
                           .dtype = torch::kFloat32};
  CausalLM::from_config(config, /*seed=*/5)->save_pretrained(folder_ / "model");
  write_tiny_tokenizer(folder_ / "model");
  std::string rows;
  for (int i = 0; i < 8; ++i) {
    const std::string n = std::to_string(i);
    rows += R"({"instruction": "What comes after )" + n + R"(?", "context": ")" +
            (i % 2 == 0 ? "" : "Numbers grow.") + R"(", "response": ")" + std::to_string(i + 1) +
            R"("})" + "\n";
  }
  folder_.write("data.jsonl", rows);
}

Arguments World::finetune(const Arguments& more, const std::string& output) const {
  Arguments arguments = {"finetune",   "--model",
                         model(),      "--data",
                         data(),       "--output-dir",
                         path(output), "--per-device-train-batch-size",
                         "2",          "--gradient-accumulation-steps",
                         "2",          "--num-train-epochs",
                         "1",          "--lora-r",
                         "4",          "--threads",
                         "1"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

std::vector<std::string> files_in(const fs::path& folder) {
  std::vector<std::string> names;
  if (!fs::exists(folder)) return names;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (!entry.is_directory()) names.push_back(fs::relative(entry.path(), folder).string());
  }
  std::ranges::sort(names);
  return names;
}

}  // namespace lorapp::test
