// dequantize: weights (items) and bytes of output a second, by instruction set, output type and
// shape. Names: BM_Nf4Dequantize/<isa>/<dtype>/<out>x<in>; BM_Nf4DequantizeInCache works on 64 x
// 1024, reused.
#include "kernels/dispatch.hpp"

#include <lorapp/quant/ops.hpp>

#include "support/mistral_shapes.hpp"

#include <vector>

using namespace lorapp;

namespace {

// With the allocation of the result, as callers see it.
void dequantize(benchmark::State& state,
                const std::string& isa,
                bench::Shape shape,
                at::ScalarType dtype,
                QuantConfig config) {
  const ScopedIsa scope(isa);
  const QuantizedTensor w = quantize_4bit(bench::random_weight(shape, at::kBFloat16), config);
  for (auto _ : state) {
    benchmark::DoNotOptimize(dequantize_4bit(w, dtype));
  }
  state.SetItemsProcessed(state.iterations() * w.numel());
  state.SetBytesProcessed(state.iterations() * w.numel() *
                          static_cast<std::int64_t>(at::elementSize(dtype)));
}

// The kernel alone, on data that stays in the cache.
void dequantize_in_cache(benchmark::State& state, const std::string& isa, at::ScalarType dtype) {
  const QuantizedTensor w = quantize_4bit(bench::random_weight({64, 1024}, at::kBFloat16));
  const at::Tensor out = at::empty({64, 1024}, dtype);
  const kernels::KernelTable& table = *kernels::find_table(isa);
  const kernels::DequantizeArgs args = {
      .codes = w.codes().const_data_ptr<std::uint8_t>(),
      .absmax = w.absmax().const_data_ptr<float>(),
      .n = w.numel(),
      .blocksize = w.blocksize(),
      .value = w.code().const_data_ptr<float>(),
      .via = kernels::Float::bf16,
      .out_type = dtype == at::kFloat ? kernels::Float::f32 : kernels::Float::bf16,
      .out = out.mutable_data_ptr(),
  };
  for (auto _ : state) {
    table.dequantize_4bit(args);
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * w.numel());
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(out.nbytes()));
}

}  // namespace

int main(int argc, char** argv) {
  const std::pair<at::ScalarType, const char*> dtypes[] = {{at::kBFloat16, "bf16"},
                                                           {at::kFloat, "f32"}};
  for (const std::string& isa : available_isas()) {
    for (const auto& [dtype, name] : dtypes) {
      const std::string in_cache = "BM_Nf4DequantizeInCache/" + isa + "/" + name;
      benchmark::RegisterBenchmark(in_cache.c_str(), dequantize_in_cache, isa, dtype);
      for (const bench::Shape shape : bench::kMistralShapes) {
        for (const bool nested : {false, true}) {
          const std::string title =
              std::string(nested ? "BM_Nf4DequantizeNested/" : "BM_Nf4Dequantize/") + isa + "/" +
              name + "/" + bench::name_of(shape);
          benchmark::RegisterBenchmark(title.c_str(), dequantize, isa, shape, dtype,
                                       QuantConfig{.use_double_quant = nested})
              ->Unit(benchmark::kMillisecond)
              ->UseRealTime();
        }
      }
    }
  }
  return bench::run(argc, argv);
}
