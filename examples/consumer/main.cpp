// A program outside lorapp's source tree: links the installed package and uses it.
// Prints the version and how far a 4-bit copy of a weight is from the weight.
#include <lorapp/quant/ops.hpp>
#include <lorapp/version.hpp>

#include <torch/torch.h>

#include <iostream>

int main() {
  const torch::Tensor weight = torch::randn({64, 128});
  const lorapp::QuantizedTensor quantized = lorapp::quantize_4bit(weight);
  const torch::Tensor difference = lorapp::dequantize_4bit(quantized) - weight;
  std::cout << "lorapp " << lorapp::kVersion << ", LibTorch " << TORCH_VERSION << "\n"
            << weight.nbytes() << " bytes in " << quantized.nbytes() << ", relative error "
            << (difference.norm() / weight.norm()).item<float>() << "\n";
}
