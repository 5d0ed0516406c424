// The ordered list of tables, and the choice at first use.
#include "kernels/dispatch.hpp"

#include "kernels/cpu_features.hpp"

#include <atomic>
#include <cstdlib>

namespace lorapp::kernels {
namespace {

struct Tables {
  KernelTable items[6];
  int count = 0;

  void add(const KernelTable& table) noexcept { items[count++] = table; }

  Tables() noexcept {
    // Best first. LORAPP_HAS_… come from the build: the sets that the compiler has.
#if defined(LORAPP_HAS_AMX)
    add(table_amx());
#endif
#if defined(LORAPP_HAS_AVX512BF16)
    add(table_avx512bf16());
#endif
#if defined(LORAPP_HAS_AVX512VNNI)
    add(table_avx512vnni());
#endif
#if defined(LORAPP_HAS_AVX512)
    add(table_avx512());
#endif
#if defined(LORAPP_HAS_AVX2)
    add(table_avx2());
#endif
    add(table_scalar());
    for (int i = count - 2; i >= 0; --i) fill(items[i], items[i + 1]);
  }

  // A stronger CPU runs a weaker table's kernels too.
  static void fill(KernelTable& table, const KernelTable& weaker) noexcept {
    if (table.quantize_4bit == nullptr) table.quantize_4bit = weaker.quantize_4bit;
    if (table.dequantize_4bit == nullptr) table.dequantize_4bit = weaker.dequantize_4bit;
    if (table.quantize_nested == nullptr) table.quantize_nested = weaker.quantize_nested;
    if (table.expand_nested == nullptr) table.expand_nested = weaker.expand_nested;
    if (table.product == nullptr) {
      table.product_shape = weaker.product_shape;
      table.pack_rows = weaker.pack_rows;
      table.product = weaker.product;
      table.vector_product = weaker.vector_product;
      table.fix_rows = weaker.fix_rows;
    }
    if (table.rms_norm == nullptr) {
      table.rms_norm = weaker.rms_norm;
      table.rms_norm_backward = weaker.rms_norm_backward;
      table.rotate = weaker.rotate;
      table.swiglu = weaker.swiglu;
      table.swiglu_backward = weaker.swiglu_backward;
      table.cross_entropy = weaker.cross_entropy;
      table.adamw = weaker.adamw;
      table.sum_of_squares = weaker.sum_of_squares;
      table.dropout = weaker.dropout;
    }
    if (table.attention_forward == nullptr) table.attention_forward = weaker.attention_forward;
    if (table.attention_backward == nullptr) table.attention_backward = weaker.attention_backward;
    if (table.attention_decode == nullptr) table.attention_decode = weaker.attention_decode;
    if (table.quantize_int8 == nullptr) table.quantize_int8 = weaker.quantize_int8;
    if (table.adamw_8bit == nullptr) table.adamw_8bit = weaker.adamw_8bit;
  }
};

const Tables& tables() noexcept {
  static const Tables all;
  return all;
}

std::atomic<const KernelTable*> active{nullptr};

const KernelTable* choose() noexcept {
  if (const char* name = forced_isa()) {
    const KernelTable* table = find_table(name);
    return table != nullptr && can_run(*table) ? table : nullptr;
  }
  for (const KernelTable& table : compiled_tables()) {
    const bool pays = (table.required & kAvx512bf16) == 0 || multiplies_bf16_pairs_fast();
    if (can_run(table) && pays) return &table;
  }
  return nullptr;  // not reached: scalar needs nothing
}

}  // namespace

TableList compiled_tables() noexcept {
  const Tables& all = tables();
  return {all.items, all.items + all.count};
}

bool can_run(const KernelTable& table) noexcept { return (table.required & ~cpu_features()) == 0; }

const KernelTable* find_table(std::string_view name) noexcept {
  for (const KernelTable& table : compiled_tables()) {
    if (name == table.name) return &table;
  }
  return nullptr;
}

const KernelTable* active_table() noexcept {
  const KernelTable* table = active.load(std::memory_order_acquire);
  if (table != nullptr) return table;
  const KernelTable* chosen = choose();  // threads that race choose the same one
  if (active.compare_exchange_strong(table, chosen, std::memory_order_acq_rel)) return chosen;
  return table;  // another thread was first
}

const KernelTable* set_active_table(const KernelTable* table) noexcept {
  return active.exchange(table, std::memory_order_acq_rel);
}

std::uint64_t call_count(const KernelTable& table) noexcept {
  return __atomic_load_n(table.calls, __ATOMIC_RELAXED);
}

const char* forced_isa() noexcept {
  const char* name = std::getenv("LORAPP_FORCE_ISA");
  return name != nullptr && *name != '\0' ? name : nullptr;
}

}  // namespace lorapp::kernels
