// Which table runs: the list, the choice, LORAPP_FORCE_ISA, the counters.
#include "kernels/dispatch.hpp"
#include "kernels/cpu_features.hpp"

#include <lorapp/error.hpp>
#include <lorapp/quant/backend.hpp>
#include <lorapp/quant/ops.hpp>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "support/for_each_isa.hpp"

using namespace lorapp;

TEST_SUITE("dispatch") {
  TEST_CASE("the scalar table is compiled in, needs nothing and is the last choice") {
    const std::vector<std::string> isas = available_isas();
    REQUIRE(!isas.empty());
    CHECK(isas.back() == "scalar");
    CHECK(kernels::find_table("scalar")->required == 0);
    CHECK((kernels::compiled_tables().end() - 1)->name == std::string("scalar"));
  }

  TEST_CASE("every table has every entry once dispatch has filled the gaps") {
    for (const kernels::KernelTable& table : kernels::compiled_tables()) {
      CHECK((table.quantize_4bit != nullptr));
      CHECK((table.dequantize_4bit != nullptr));
      CHECK((table.quantize_nested != nullptr));
      CHECK((table.expand_nested != nullptr));
      CHECK((table.calls != nullptr));
    }
  }

  TEST_CASE("a table that needs a feature which no CPU has cannot run") {
    kernels::KernelTable table = *kernels::find_table("scalar");
    table.required = 1u << 31;
    CHECK(!kernels::can_run(table));
    CHECK((kernels::cpu_features() >> 31) == 0u);
  }

  TEST_CASE("the CPU features agree with those that the compiler's runtime sees") {
#if defined(__x86_64__)
    __builtin_cpu_init();
    const std::uint32_t found = kernels::cpu_features();
    CHECK(((found & kernels::kAvx2) != 0) == (__builtin_cpu_supports("avx2") != 0));
    CHECK(((found & kernels::kFma) != 0) == (__builtin_cpu_supports("fma") != 0));
    CHECK(((found & kernels::kAvx512f) != 0) == (__builtin_cpu_supports("avx512f") != 0));
    CHECK(((found & kernels::kAvx512bw) != 0) == (__builtin_cpu_supports("avx512bw") != 0));
    CHECK(((found & kernels::kAvx512vl) != 0) == (__builtin_cpu_supports("avx512vl") != 0));
    CHECK(((found & kernels::kAvx512dq) != 0) == (__builtin_cpu_supports("avx512dq") != 0));
    CHECK(((found & kernels::kAvx512vnni) != 0) == (__builtin_cpu_supports("avx512vnni") != 0));
    CHECK(((found & kernels::kAvx512bf16) != 0) == (__builtin_cpu_supports("avx512bf16") != 0));
#else
    CHECK(kernels::cpu_features() == 0u);
#endif
  }

  TEST_CASE("without LORAPP_FORCE_ISA the fastest set is active, with it the named one") {
    const char* forced = std::getenv("LORAPP_FORCE_ISA");
    if (forced == nullptr || *forced == '\0') {
      const bool slow_pairs =
          available_isas().front() == "avx512bf16" && !kernels::multiplies_bf16_pairs_fast();
      CHECK(active_isa() == available_isas()[slow_pairs ? 1 : 0]);
    } else {
      CHECK(active_isa() == forced);
    }
  }

  TEST_CASE("kernels use LibTorch's threads, all of them") {
#if defined(__GNUC__) && !defined(__clang__)
    CHECK(kernel_threads() == at::get_num_threads());
#else
    CHECK(kernel_threads() == 1);
#endif
  }

  TEST_CASE("an operation runs the kernels of the active table and of no other") {
    const at::Tensor w = at::randn({8, 64});
    test::for_each_isa([&](const std::string& isa) {
      REQUIRE(active_isa() == isa);  // the comparison with the scalar kernels is over
      std::vector<std::uint64_t> before;
      for (const auto& table : kernels::compiled_tables()) before.push_back(call_count(table));
      dequantize_4bit(quantize_4bit(w, {.use_double_quant = true}));
      std::size_t i = 0;
      for (const auto& table : kernels::compiled_tables()) {
        const std::uint64_t calls = call_count(table) - before[i++];
        CAPTURE(table.name);
        if (isa == table.name) {
          CHECK(calls >= 4);
        } else {
          CHECK(calls == 0);
        }
      }
    });
  }

  TEST_CASE("ScopedIsa restores what was active, also when scopes nest") {
    const std::string before = active_isa();
    {
      const ScopedIsa outer("scalar");
      CHECK(active_isa() == "scalar");
      {
        const ScopedIsa inner(available_isas().front());
        const bool slow_pairs =
            available_isas().front() == "avx512bf16" && !kernels::multiplies_bf16_pairs_fast();
        CHECK(active_isa() == available_isas()[slow_pairs ? 1 : 0]);
      }
      CHECK(active_isa() == "scalar");
    }
    CHECK(active_isa() == before);
  }

  TEST_CASE("an unknown name is an Error that lists what exists") {
    try {
      const ScopedIsa scope("sse9");
      FAIL("no exception");
    } catch (const Error& error) {
      const std::string message = error.what();
      CHECK(message.find("\"sse9\"") != std::string::npos);
      for (const std::string& isa : available_isas()) {
        CHECK(message.find(isa) != std::string::npos);
      }
    }
  }

  TEST_CASE("a known set that the CPU lacks is an Error that says so") {
    const std::vector<std::string> isas = available_isas();
    for (const auto& table : kernels::compiled_tables()) {
      if (std::find(isas.begin(), isas.end(), table.name) != isas.end()) continue;
      CHECK_THROWS_WITH_AS(ScopedIsa{table.name}, doctest::Contains("does not support"), Error);
    }
  }

  TEST_CASE("a wrong LORAPP_FORCE_ISA is an Error at the first operation, not a silent choice") {
    const char* saved = std::getenv("LORAPP_FORCE_ISA");
    const std::string restore = saved != nullptr ? saved : "";
    const kernels::KernelTable* active = kernels::set_active_table(nullptr);
    setenv("LORAPP_FORCE_ISA", "sse9", 1);
    CHECK_THROWS_WITH_AS(active_isa(), doctest::Contains("LORAPP_FORCE_ISA names \"sse9\""), Error);
    CHECK_THROWS_AS(quantize_4bit(at::ones({2, 32})), Error);
    setenv("LORAPP_FORCE_ISA", "scalar", 1);
    CHECK(active_isa() == "scalar");
    if (saved != nullptr) {
      setenv("LORAPP_FORCE_ISA", restore.c_str(), 1);
    } else {
      unsetenv("LORAPP_FORCE_ISA");
    }
    kernels::set_active_table(active);
  }
}
