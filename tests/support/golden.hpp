// Reference files of tests/golden, and how far a result is from them.
// The measure is ‖got − want‖ / ‖want‖ over a whole tensor, in double.
#pragma once

#include <lorapp/error.hpp>
#include <lorapp/io/safetensors.hpp>

#include <ATen/Parallel.h>
#include <doctest/doctest.h>
#include <torch/types.h>
#include <nlohmann/json.hpp>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace lorapp::test {

/// What a float32 result may differ from the reference by.
inline constexpr double kGoldenTolerance = 1e-5;

inline std::filesystem::path golden_path(const std::string& name) {
  return std::filesystem::path(LORAPP_TEST_SOURCE_DIR) / "tests/golden" / name;
}

inline nlohmann::json golden_json(const std::string& name) {
  return nlohmann::json::parse(std::ifstream(golden_path(name)));
}

/// A golden safetensors file; a tensor that is missing fails the test with its name.
class GoldenTensors {
 public:
  explicit GoldenTensors(const std::string& name)
      : file_(SafetensorsFile::open(golden_path(name))) {}

  torch::Tensor operator[](const std::string& name) const { return file_.view(name).clone(); }
  double scalar(const std::string& name) const { return file_.view(name).item<double>(); }

  /// The names that begin with `prefix`, without it.
  std::vector<std::string> names_under(const std::string& prefix) const {
    std::vector<std::string> names;
    for (const std::string& name : file_.names()) {
      if (name.starts_with(prefix)) names.push_back(name.substr(prefix.size()));
    }
    return names;
  }

 private:
  SafetensorsFile file_;
};

/// One thread for as long as it lives: for tiny tensors more threads only wait for each other, the
/// longer the busier the machine is.
class OneThread {
 public:
  OneThread() : before_(at::get_num_threads()) { at::set_num_threads(1); }
  ~OneThread() { at::set_num_threads(before_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_;
};

/// ‖got − want‖ / ‖want‖; infinite where the shapes differ or got is not finite.
inline double relative_error(const torch::Tensor& got, const torch::Tensor& want) {
  if (!got.defined() || got.sizes() != want.sizes()) return INFINITY;
  const auto wanted = want.detach().to(torch::kFloat64);
  const double difference = (got.detach().to(torch::kFloat64) - wanted).norm().item<double>();
  const double norm = wanted.norm().item<double>();
  if (!std::isfinite(difference)) return INFINITY;
  return norm > 0 ? difference / norm : difference;
}

inline double relative_error(double got, double want) {
  return std::isfinite(got) ? std::abs(got - want) / std::abs(want) : INFINITY;
}

}  // namespace lorapp::test

/// Checks ‖got − want‖ / ‖want‖ ≤ kGoldenTolerance and shows the distance if it is larger.
#define CHECK_GOLDEN(got, want)                                                          \
  do {                                                                                   \
    const double golden_error = ::lorapp::test::relative_error((got), (want));           \
    CHECK_MESSAGE(golden_error <= ::lorapp::test::kGoldenTolerance, #got, " is off by ", \
                  golden_error);                                                         \
  } while (false)
