// What the CPU has and the operating system saves: CPUID and XGETBV.
// Compiled without instruction set flags: this code decides which of the others may run.
#pragma once

#include <lorapp/export.hpp>

#include <cstdint>

namespace lorapp::kernels {

/// Feature bits (table.hpp) that may be used by this process; 0 on other architectures.
LORAPP_API std::uint32_t cpu_features() noexcept;

/// True where VDPBF16PS does more in a cycle than two fused multiply-adds of f32: on AMD's CPUs
/// twice as much. Intel's do half as much (Emerald Rapids: 92 against 192 GFLOP/s a core), since
/// they have tiles for it.
LORAPP_API bool multiplies_bf16_pairs_fast() noexcept;

}  // namespace lorapp::kernels
