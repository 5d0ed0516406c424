// Which KernelTable is in use: the best that runs here, or the one that LORAPP_FORCE_ISA names.
// Exported for the tests and benchmarks, which compare tables with each other.
// No exceptions: a name that cannot be used gives null, and quant/backend.cpp says so to the user.
#pragma once

#include "kernels/table.hpp"

#include <lorapp/export.hpp>

#include <string_view>

namespace lorapp::kernels {

/// The tables that were compiled in, best first, null entries filled from the weaker ones; ends at
/// `end`.
struct TableList {
  const KernelTable* begin_;
  const KernelTable* end_;
  const KernelTable* begin() const noexcept { return begin_; }
  const KernelTable* end() const noexcept { return end_; }
};
LORAPP_API TableList compiled_tables() noexcept;

/// True if this CPU and operating system have all that the table needs.
LORAPP_API bool can_run(const KernelTable& table) noexcept;

/// The compiled table of that name, or null.
LORAPP_API const KernelTable* find_table(std::string_view name) noexcept;

/// The table in use. Null if LORAPP_FORCE_ISA is set to a name that is unknown or cannot run here.
LORAPP_API const KernelTable* active_table() noexcept;

/// Replaces it (null: chosen again at the next use) and returns the previous one.
LORAPP_API const KernelTable* set_active_table(const KernelTable* table) noexcept;

/// How many kernels of this table have run.
LORAPP_API std::uint64_t call_count(const KernelTable& table) noexcept;

/// The value of LORAPP_FORCE_ISA, or null if it is unset or empty.
LORAPP_API const char* forced_isa() noexcept;

}  // namespace lorapp::kernels
