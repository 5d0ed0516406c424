// cuda_launchers.hpp in a build without CUDA.
#include "kernels/cuda_launchers.hpp"

namespace lorapp::kernels::cuda {

const Launchers* launchers() noexcept { return nullptr; }

}  // namespace lorapp::kernels::cuda
