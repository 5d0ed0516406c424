// Names of instruction sets, and the errors about them.
#include "quant/backend.hpp"

#include "kernels/dispatch.hpp"
#include "quant/self_test.hpp"

#include <lorapp/error.hpp>
#include <lorapp/quant/backend.hpp>

#include <ATen/Parallel.h>

#include <atomic>

namespace lorapp {
namespace {

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

// The table of that name; `source` says in the message where the name came from.
const kernels::KernelTable& usable_table(std::string_view name, std::string_view source) {
  const kernels::KernelTable* table = kernels::find_table(name);
  LORAPP_CHECK(table != nullptr, "isa", source, " names \"", name,
               "\", which is not an instruction set of this build; available here: ",
               joined(available_isas()));
  LORAPP_CHECK(kernels::can_run(*table), "isa", source, " names ", name,
               ", which this CPU or operating system does not support; available here: ",
               joined(available_isas()));
  return *table;
}

}  // namespace

const kernels::KernelTable& detail::kernel_table() {
  const kernels::KernelTable* table = kernels::active_table();
  if (table == nullptr) return usable_table(kernels::forced_isa(), "LORAPP_FORCE_ISA");
  // Before the first use, and again after a change: threads that race check the same table.
  static std::atomic<const kernels::KernelTable*> checked{nullptr};
  if (checked.load(std::memory_order_acquire) != table) {
    check_products(*table);
    check_rows(*table);
    checked.store(table, std::memory_order_release);
  }
  return *table;
}

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const kernels::KernelTable& table : kernels::compiled_tables()) {
    if (kernels::can_run(table)) names.emplace_back(table.name);
  }
  return names;
}

std::string active_isa() { return detail::kernel_table().name; }

ScopedIsa::ScopedIsa(std::string_view name)
    : previous_(kernels::set_active_table(&usable_table(name, "ScopedIsa"))) {}

ScopedIsa::~ScopedIsa() {
  kernels::set_active_table(static_cast<const kernels::KernelTable*>(previous_));
}

int kernel_threads() {
#if defined(_OPENMP)
  return at::get_num_threads();
#else
  return 1;
#endif
}

}  // namespace lorapp
