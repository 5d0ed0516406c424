// torch_randperm: torch's own permutation from a generator of its own.
#include <lorapp/data/permutation.hpp>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

namespace lorapp {

std::vector<int64_t> torch_randperm(int64_t n, uint64_t seed) {
  LORAPP_CHECK(n >= 0, "torch_randperm", "n is ", n, ", expected 0 or more");
  const auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  const at::Tensor order = at::randperm(n, generator, at::TensorOptions().dtype(at::kLong));
  const int64_t* begin = order.const_data_ptr<int64_t>();
  return {begin, begin + n};
}

}  // namespace lorapp
