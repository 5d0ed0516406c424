// The symbols of cuda_launch.hpp in a build without CUDA.
#include "kernels/cuda_launch.hpp"

namespace lorapp::kernels::cuda {

bool compiled() noexcept { return false; }

}  // namespace lorapp::kernels::cuda
