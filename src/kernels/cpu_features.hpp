// What the CPU has and the operating system saves: CPUID and XGETBV.
// Compiled without instruction set flags: this code decides which of the others may run.
#pragma once

#include <cstdint>

namespace lorapp::kernels {

/// Feature bits (table.hpp) that may be used by this process; 0 on other architectures.
std::uint32_t cpu_features() noexcept;

}  // namespace lorapp::kernels
