// The kernel table in use, for the operations of this room and nn; throws where the kernels room
// returns null. Private: users see include/lorapp/quant/backend.hpp.
#pragma once

#include "kernels/table.hpp"

namespace lorapp::detail {

/// The table in use. Throws Error if LORAPP_FORCE_ISA names one that is unknown or cannot run here.
const kernels::KernelTable& kernel_table();

}  // namespace lorapp::detail
