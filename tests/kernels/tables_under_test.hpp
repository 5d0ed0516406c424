// The tables of kernels that a test of all of them goes through.
#pragma once

#include "kernels/dispatch.hpp"

#include <vector>

#if defined(LORAPP_TEST_HAS_CUDA)
#include "cuda/device_memory.hpp"
#endif

namespace lorapp::kernels {

#if defined(LORAPP_TEST_HAS_EMULATION)
const KernelTable& table_avx512_emulated();  // AVX-512's bodies on any CPU, by SIMDe
#endif

/// Those that this CPU runs, and those that the test brings: AVX-512 emulated, and the CUDA kernels
/// (emulated, or on a GPU), whose products and attention are null.
inline std::vector<const KernelTable*> tables_under_test() {
  std::vector<const KernelTable*> tables;
  for (const KernelTable& table : compiled_tables()) {
    if (can_run(table)) tables.push_back(&table);
  }
#if defined(LORAPP_TEST_HAS_EMULATION)
  tables.push_back(&table_avx512_emulated());
#endif
#if defined(LORAPP_TEST_HAS_CUDA)
  tables.push_back(&test::table_cuda());
#endif
  return tables;
}

}  // namespace lorapp::kernels
