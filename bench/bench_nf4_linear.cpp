// linear_4bit forward, and forward + gradient of x, beside the dense linear: floating-point
// operations a second. Names: BM_Nf4Linear/<dtype>/<out>x<in>/<rows>, BM_Nf4LinearBackward/…,
// BM_DenseLinear/….
#include <lorapp/quant/ops.hpp>

#include "support/mistral_shapes.hpp"

using namespace lorapp;

namespace {

enum class Kind { dense, forward, backward };

void linear(benchmark::State& state,
            Kind kind,
            bench::Shape shape,
            at::ScalarType dtype,
            std::int64_t rows) {
  const at::Tensor weight = bench::random_weight(shape, at::kBFloat16);
  const QuantizedTensor w = quantize_4bit(weight);
  const at::Tensor dense = kind == Kind::dense ? dequantize_4bit(w, dtype) : at::Tensor();
  at::Tensor x = bench::random_weight({rows, shape.in}, dtype);
  const at::Tensor dy = bench::random_weight({rows, shape.out}, dtype);
  if (kind == Kind::backward) x = x.requires_grad_();
  for (auto _ : state) {
    if (kind == Kind::dense) {
      benchmark::DoNotOptimize(at::linear(x, dense));
    } else {
      const at::Tensor y = linear_4bit(x, w, {}, dtype);
      if (kind == Kind::backward) {
        y.backward(dy);
        x.mutable_grad().reset();
      }
      benchmark::DoNotOptimize(y);
    }
  }
  const double flops =
      2.0 * static_cast<double>(rows * shape.in * shape.out) * (kind == Kind::backward ? 2 : 1);
  state.counters["flops"] = benchmark::Counter(flops * static_cast<double>(state.iterations()),
                                               benchmark::Counter::kIsRate);
}

}  // namespace

int main(int argc, char** argv) {
  const std::pair<Kind, const char*> kinds[] = {{Kind::dense, "BM_DenseLinear"},
                                                {Kind::forward, "BM_Nf4Linear"},
                                                {Kind::backward, "BM_Nf4LinearBackward"}};
  for (const auto& [kind, kind_name] : kinds) {
    for (const auto& [dtype, name] : {std::pair{at::kFloat, "f32"}, {at::kBFloat16, "bf16"}}) {
      for (const bench::Shape shape : bench::kMistralShapes) {
        for (const std::int64_t rows : bench::kRows) {
          const std::string title = std::string(kind_name) + "/" + name + "/" +
                                    bench::name_of(shape) + "/" + std::to_string(rows);
          benchmark::RegisterBenchmark(title.c_str(), linear, kind, shape, dtype, rows)
              ->Unit(benchmark::kMillisecond)
              ->UseRealTime();
        }
      }
    }
  }
  return bench::run(argc, argv);
}
