// The CUDA kernels' speed on the first GPU, as shares of ceilings measured between them: the copy
// bandwidth, cuBLASLt's product of dense matrices. Prints a table. Status 77 without a GPU.
#include "measure.hpp"

#include <cstdio>

namespace lorapp::bench_gpu {

void dequantizing(const float* map) {
  const Weight w(4096, 14336);
  std::vector<std::uint16_t*> out;
  for (int i = 0; i < 4; ++i) out.push_back(device_buffer<std::uint16_t>(w.rows * w.columns));
  report(
      "dequantize 4096×14336, nested scales, to bf16", 0.90,
      w.bytes() + 2.0 * static_cast<double>(w.rows * w.columns),
      [&](int i, void* stream) {
        cuda::DequantizeRowsArgs args{};
        w.set(args, i, map);
        args.via = args.out_type = Float::bf16;
        args.out = out[static_cast<std::size_t>(i % 4)];
        args.out_stride = w.columns;
        return cuda::dequantize_4bit(args, stream);
      },
      w.copies);
}

void elementwise() {
  constexpr std::int64_t kTokens = 8192, kHidden = 4096, kFfn = 14336, kVocab = 32000,
                         kLabelled = 2048;
  const std::int64_t n = kTokens * kHidden, wide = kTokens * kFfn;
  std::uint16_t *x = random_bf16(wide), *up = random_bf16(wide), *dy = random_bf16(wide),
                *weight = random_bf16(kHidden);
  auto* y = device_buffer<std::uint16_t>(wide);
  auto* scale = device_buffer<float>(kTokens);
  const auto bytes = [](std::int64_t elements) { return 2.0 * static_cast<double>(elements); };
  report("RMSNorm, 8192 × 4096", 0.85, bytes(2 * n), [&](int, void* stream) {
    return cuda::rms_norm({x, Float::bf16, kTokens, kHidden, weight, 1e-5f, y, scale}, stream);
  });
  report("RMSNorm, gradient", 0.85, bytes(3 * n), [&](int, void* stream) {
    return cuda::rms_norm_backward(
        {x, Float::bf16, kTokens, kHidden, weight, scale, dy, y, nullptr}, stream);
  });
  auto *dweight = device_buffer<float>(kHidden),
       *scratch = device_buffer<float>(ColumnSumMap{kTokens, kHidden}.scratch());
  check(cudaMemset(dweight, 0, kHidden * sizeof(float)), "memory");
  report("RMSNorm, gradient of the weight", 0.85, bytes(2 * n), [&](int, void* stream) {
    return cuda::rms_norm_backward(
        {x, Float::bf16, kTokens, kHidden, weight, scale, dy, nullptr, dweight, scratch}, stream);
  });
  const std::uint16_t *cos = random_bf16(kTokens * 64), *sin = random_bf16(kTokens * 64);
  report("rotation, 8192 × 32 × 128", 0.85, bytes(2 * n), [&](int, void* stream) {
    return cuda::rotate({x, Float::bf16, kTokens, 32, 128, kHidden, 128, cos, sin, false, y},
                        stream);
  });
  report("SwiGLU, 8192 × 14336", 0.85, bytes(3 * wide), [&](int, void* stream) {
    return cuda::swiglu({x, up, Float::bf16, wide, y}, stream);
  });
  auto* dgate = device_buffer<std::uint16_t>(wide);
  report("SwiGLU, gradients", 0.85, bytes(5 * wide), [&](int, void* stream) {
    return cuda::swiglu_backward({x, up, dy, Float::bf16, wide, dgate, y}, stream);
  });
  // Of one product, as in a layer.
  const std::uint16_t* both = random_bf16(2 * wide);
  auto* dboth = device_buffer<std::uint16_t>(2 * wide);
  const cuda::GateRows columns{kFfn, 2 * kFfn, 2 * kFfn};
  report("SwiGLU of columns", 0.85, bytes(3 * wide), [&](int, void* stream) {
    return cuda::swiglu({both, both + kFfn, Float::bf16, wide, y}, stream, columns);
  });
  report("SwiGLU of columns, gradients", 0.85, bytes(5 * wide), [&](int, void* stream) {
    return cuda::swiglu_backward({both, both + kFfn, dy, Float::bf16, wide, dboth, dboth + kFfn},
                                 stream, columns);
  });
  report("dropout, 8192 × 4096", 0.85, bytes(2 * n), [&](int, void* stream) {
    return cuda::dropout({x, Float::bf16, n, 7, 0, 0x20000000u, 1.142857f, y}, stream);
  });
  std::vector<std::int64_t> labels(kLabelled, 5);
  const std::int64_t* label = on_device(labels);
  float *largest = device_buffer<float>(kLabelled), *sum = device_buffer<float>(kLabelled),
        *picked = device_buffer<float>(kLabelled);
  report("loss and its gradient, 2048 × 32000", 0.85, bytes(2 * kLabelled * kVocab),
         [&](int, void* stream) {
           return cuda::cross_entropy({y, Float::bf16, kLabelled, kVocab, label, true, 1e-3f,
                                       largest, sum, picked, nullptr},
                                      stream);
         });
  constexpr std::int64_t kParameters = 42'000'000;  // r = 16 on all linear layers of Mistral-7B
  float *p = random_f32(kParameters), *g = random_f32(kParameters), *m = random_f32(kParameters),
        *v = device_buffer<float>(kParameters);
  check(cudaMemset(v, 0, kParameters * sizeof(float)), "memory");
  auto *partial = device_buffer<double>(cuda::kPartialSums), *squares = device_buffer<double>(1);
  const AdamWStep step{1.0f, 0.999f, 0.1f, 0.001f, 0.03f, 1e-6f, 1e-8f, 1.0f};
  report("norm of gradients, 42 M", 0.85, 4.0 * kParameters, [&](int, void* stream) {
    return cuda::sum_of_squares(g, kParameters, partial, squares, stream);
  });
  report("AdamW with clipping, 42 M", 0.85, 28.0 * kParameters, [&](int, void* stream) {
    return cuda::adamw({p, g, m, v, kParameters, step}, {squares, 1.0f}, stream);
  });
  constexpr std::int64_t kBlocks = (kParameters + kMomentBlock - 1) / kMomentBlock;
  auto *m_codes = device_buffer<std::uint8_t>(kParameters),
       *v_codes = device_buffer<std::uint8_t>(kParameters);
  auto *m_absmax = device_buffer<float>(kBlocks), *v_absmax = device_buffer<float>(kBlocks);
  check(cudaMemset(m_absmax, 0, kBlocks * sizeof(float)), "memory");
  check(cudaMemset(v_absmax, 0, kBlocks * sizeof(float)), "memory");
  report("AdamW in 8 bits with clipping, 42 M", 0.85, 16.0 * kParameters + 16.0 * kBlocks,
         [&](int, void* stream) {
           return cuda::adamw_8bit({p, g, m_codes, v_codes, m_absmax, v_absmax, kParameters, step},
                                   {squares, 1.0f}, stream);
         });
}

}  // namespace lorapp::bench_gpu

int main() {
  using namespace lorapp::bench_gpu;
  int devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&devices);
  if (error != cudaSuccess || devices == 0) {
    std::printf("skipped: no GPU (%s)\n", cudaGetErrorString(error));
    return 77;
  }
  cudaDeviceProp gpu;
  check(cudaGetDeviceProperties(&gpu, 0), "the GPU");
  std::printf(
      "%s, compute capability %d.%d, %d multiprocessors\n\n| work | target | measured | "
      "|\n|---|---|---|---|\n",
      gpu.name, gpu.major, gpu.minor, gpu.multiProcessorCount);
  const lorapp::DynamicMap map = lorapp::dynamic_map();
  const float* values = on_device(std::vector<float>(map.value, map.value + 256));
  dequantizing(values);
  small_products(values);
  many_tokens(values);
  elementwise();
}
