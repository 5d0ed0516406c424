// The door to the CUDA kernels, as seen by host code: no CUDA header is needed to include it.
// Launchers take the arguments of table.hpp with device pointers, and a stream; they return a code.
#pragma once

namespace lorapp::kernels::cuda {

/// True if CUDA kernels were compiled in.
bool compiled() noexcept;

}  // namespace lorapp::kernels::cuda
