// The main function of every test binary. With LORAPP_FORCE_ISA set it says at the end how many
// kernels of that instruction set have run, which run_with_isa.cmake reads.
#define DOCTEST_CONFIG_IMPLEMENT
#include "kernels/dispatch.hpp"

#include <doctest/doctest.h>

#include <iostream>

int main(int argc, char** argv) {
  doctest::Context context(argc, argv);
  const int result = context.run();
  if (context.shouldExit()) return result;
  namespace kernels = lorapp::kernels;
  if (const char* isa = kernels::forced_isa()) {
    const kernels::KernelTable* table = kernels::find_table(isa);
    std::cout << "kernel calls of " << isa << ": "
              << (table == nullptr ? 0 : kernels::call_count(*table)) << '\n';
  }
  return result;
}
