// The AVX-512 kernels, compiled against the emulation beside this file, as one more table.
#include "kernels/simd_avx512.hpp"

#include "kernels/kernels.inl"

namespace lorapp::kernels {
const KernelTable& table_avx512_emulated();
}

LORAPP_DEFINE_KERNEL_TABLE(avx512_emulated, 0)
