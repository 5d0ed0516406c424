// What 4 bits cost: every matrix of a safetensors file (or a random one) in NF4 and FP4, with its
// size and the error of its values and of a product with it.
//
//   quantize [FILE.safetensors]
#include <lorapp/io/safetensors.hpp>
#include <lorapp/quant/ops.hpp>

#include <torch/torch.h>

#include <cstdio>
#include <exception>
#include <string>

using namespace lorapp;

namespace {

double relative_error(const torch::Tensor& got, const torch::Tensor& want) {
  return ((got - want).norm() / want.norm()).item<double>();
}

void report(const std::string& name, const torch::Tensor& weight) {
  const torch::Tensor dense = weight.to(torch::kFloat32);
  const torch::Tensor x = torch::randn({16, dense.size(1)});
  const torch::Tensor product = torch::linear(x, dense);
  for (const QuantType type : {QuantType::nf4, QuantType::fp4}) {
    for (const bool double_quant : {false, true}) {
      const QuantizedTensor packed =
          quantize_4bit(weight, {.quant_type = type, .use_double_quant = double_quant});
      const double bits =
          8.0 * static_cast<double>(packed.nbytes()) / static_cast<double>(packed.numel());
      std::printf("%-48s %s%s  %5.3f bits/weight  values %.4f  product %.4f\n", name.c_str(),
                  std::string(quant_type_name(type)).c_str(), double_quant ? " double" : "       ",
                  bits, relative_error(dequantize_4bit(packed, torch::kFloat32), dense),
                  relative_error(linear_4bit(x, packed, {}, torch::kFloat32), product));
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    torch::manual_seed(0);
    if (argc < 2) {
      report("normal, 1024 x 1024", 0.02 * torch::randn({1024, 1024}));
      return 0;
    }
    const SafetensorsFile file = SafetensorsFile::open(argv[1]);
    for (const std::string& name : file.names()) {
      const torch::Tensor tensor = file.view(name);  // mapped; read when it is touched
      if (tensor.dim() == 2 && tensor.is_floating_point()) report(name, tensor);
      file.release(name);
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
