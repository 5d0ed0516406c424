// Prints what this machine can do at most, one JSON object a line; see support/ceilings.hpp.
//   ceilings [THREADS]
// Each figure for one thread and for THREADS (default: as many as there are CPUs).
#include "support/ceilings.hpp"

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <set>

using namespace lorapp::bench;

namespace {

void print(const char* name, int threads, double value, const char* unit) {
  std::printf("{\"name\": \"%s\", \"threads\": %d, \"value\": %.6g, \"unit\": \"%s\"}\n", name,
              threads, value, unit);
  std::fflush(stdout);
}

void measure(const std::set<int>& counts) {
  for (const Loop loop : kLoops) {
    const std::string missing = missing_for(loop);
    if (!missing.empty()) {
      std::printf("{\"name\": \"%s\", \"absent\": \"this CPU has no %s\"}\n", name_of(loop),
                  missing.c_str());
      continue;
    }
    for (const int threads : counts)
      print(name_of(loop), threads, flops_of(loop, threads), "flop/s");
  }
  for (const bool huge : {true, false}) {
    for (const int threads : counts) {
      const Pages pages(buffer_bytes(), huge, threads);
      if (huge && Pages::huge_bytes() < pages.size() / 2) {
        std::printf(
            "{\"name\": \"read_2mib_pages\", \"threads\": %d, \"absent\": \"the system gives no "
            "huge pages\"}\n",
            threads);
        continue;
      }
      print(huge ? "read_2mib_pages" : "read_4kib_pages", threads,
            read_bandwidth(pages, threads, huge), "byte/s");
      if (huge) print("copy_2mib_pages", threads, copy_bandwidth(pages, threads), "byte/s");
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int threads =
      argc > 1 ? std::atoi(argv[1]) : static_cast<int>(std::thread::hardware_concurrency());
  if (argc > 2 || threads < 1) {
    std::fprintf(stderr, "usage: ceilings [THREADS]\n");
    return 2;
  }
  try {
    measure({1, threads});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "ceilings: %s\n", error.what());
    return 1;
  }
  return 0;
}
