// quantize_4bit: bytes of input a second, by instruction set, input type and shape.
// Names: BM_Nf4Quantize/<isa>/<dtype>/<out>x<in>.
#include <lorapp/quant/ops.hpp>

#include "support/mistral_shapes.hpp"

using namespace lorapp;

namespace {

void quantize(benchmark::State& state,
              const std::string& isa,
              bench::Shape shape,
              at::ScalarType dtype,
              QuantConfig config) {
  const ScopedIsa scope(isa);
  const at::Tensor w = bench::random_weight(shape, dtype);
  for (auto _ : state) {
    benchmark::DoNotOptimize(quantize_4bit(w, config));
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(w.nbytes()));
  state.SetItemsProcessed(state.iterations() * w.numel());
}

}  // namespace

int main(int argc, char** argv) {
  for (const std::string& isa : available_isas()) {
    for (const auto& [dtype, name] :
         {std::pair{at::kBFloat16, "bf16"}, {at::kFloat, "f32"}, {at::kHalf, "f16"}}) {
      for (const bench::Shape shape : bench::kMistralShapes) {
        for (const bool nested : {false, true}) {
          const std::string title =
              std::string(nested ? "BM_Nf4QuantizeNested/" : "BM_Nf4Quantize/") + isa + "/" + name +
              "/" + bench::name_of(shape);
          benchmark::RegisterBenchmark(title.c_str(), quantize, isa, shape, dtype,
                                       QuantConfig{.use_double_quant = nested})
              ->Unit(benchmark::kMillisecond)
              ->UseRealTime();
        }
      }
    }
  }
  return bench::run(argc, argv);
}
