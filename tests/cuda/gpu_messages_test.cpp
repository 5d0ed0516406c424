// What keeps kernels from running on a GPU, in words.
#include "kernels/cuda_gpu.hpp"

#include <doctest/doctest.h>

#include <string>

using namespace lorapp::kernels::cuda;

namespace {

GpuFacts gpu(int capability) { return {"a GPU", capability, 100, std::int64_t{1} << 34}; }
std::string said(int capability, const char* architectures) {
  return why_not(gpu(capability), architectures).value_or("");
}

}  // namespace

TEST_SUITE("GPUs that cannot be used") {
  TEST_CASE("code runs on its generation, and on later ones where intermediate code is there") {
    for (const int capability : {80, 86, 89, 90, 100, 103, 120}) {
      CHECK(said(capability, "80,90").empty());
      CHECK(said(capability, "80").empty());
    }
    CHECK(said(89, "80-real,90-real").empty());
    CHECK_FALSE(said(100, "80-real,90-real").empty());
    CHECK_FALSE(said(80, "86-real,90").empty());
    CHECK(said(90, "80-real,90a").empty());
    CHECK_FALSE(said(100, "90a").empty());  // code of that one GPU alone
    CHECK(said(103, "100f").empty());
    CHECK_FALSE(said(120, "100f").empty());
    CHECK(said(120, "90-virtual").empty());
    CHECK_FALSE(said(90, "").empty());
  }

  TEST_CASE("a build without the GPU's architecture names both, and the option that adds it") {
    const std::string message = said(80, "90");
    CHECK(message.find("8.0") != std::string::npos);
    CHECK(message.find("compiled for 90;") != std::string::npos);
    CHECK(message.find("LORAPP_CUDA_ARCHS=80") != std::string::npos);
  }

  TEST_CASE("a GPU before Ampere is refused whatever was compiled") {
    const std::string message = said(75, "75,80,90");
    CHECK(message.find("7.5") != std::string::npos);
    CHECK(message.find("8.0 or more") != std::string::npos);
  }

  TEST_CASE("no driver, an old driver and no GPU are three messages; a GPU is none") {
    GpuSearch search;
    search.runtime_version = 13000;
    CHECK(why_none(search).value().find("has no NVIDIA driver; install one that knows CUDA 13.0") !=
          std::string::npos);
    search.driver_version = 12080;
    CHECK(why_none(search).value().find("knows CUDA 12.8, but lorapp was built with CUDA 13.0") !=
          std::string::npos);
    search.driver_version = 13000;
    search.error = "no CUDA-capable device is detected";
    CHECK(why_none(search).value().find("no CUDA-capable device is detected") != std::string::npos);
    search.gpus.push_back(gpu(90));
    CHECK_FALSE(why_none(search).has_value());
  }
}
