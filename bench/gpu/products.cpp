// Products with 4-bit weights: of a few rows beside the copy bandwidth, of many beside cuBLASLt's
// product with the dense weight.
#include "measure.hpp"

#include <algorithm>
#include <string>
#include <vector>

namespace lorapp::bench_gpu {

void small_products(const float* map) {
  // By themselves, and as a layer of Mistral-7B has them: one launch of several.
  struct Weights {
    const char* name;
    std::vector<std::int64_t> rows;
    std::int64_t columns;
  };
  for (const Weights& given : {Weights{"4096×4096", {4096}, 4096},
                               {"1024×4096", {1024}, 4096},
                               {"14336×4096", {14336}, 4096},
                               {"4096×14336", {4096}, 14336},
                               {"q, k and v", {4096, 1024, 1024}, 4096},
                               {"gate and up", {14336, 14336}, 4096}}) {
    std::vector<Weight> weights;
    std::int64_t rows = 0, copies = 0;
    double bytes = 0;
    for (const std::int64_t each : given.rows) {
      weights.emplace_back(each, given.columns);
      rows += each;
      bytes += weights.back().bytes();
      copies = std::max(copies, weights.back().copies);
    }
    for (const std::int64_t tokens : {1, 2, 4, 8, 16, 32, 64}) {
      const std::uint16_t* x = random_bf16(tokens * given.columns);
      auto* y = device_buffer<std::uint16_t>(tokens * rows);
      report(
          std::to_string(tokens) + " rows × " + given.name, tokens == 1 ? 0.80 : 0.0,
          bytes + 2.0 * static_cast<double>(tokens * (rows + given.columns)),
          [&](int i, void* stream) {
            std::vector<cuda::SmallProductArgs> parts;
            std::int64_t row = 0;
            for (const Weight& each : weights) {
              cuda::SmallProductArgs args{};
              args.x = x;
              args.tokens = tokens;
              each.set(args, i, map);
              args.y = y + row * tokens;
              row += each.rows;
              parts.push_back(args);
            }
            return cuda::small_products(parts.data(), static_cast<int>(parts.size()), stream);
          },
          copies);
    }
  }
}

namespace {

struct LinearShape {
  std::int64_t rows, columns;
};

// cuBLASLt's seconds for y = x · op(w), dense, and for what is measured, in turn; one row each way.
void forward_and_gradient(const cuda::DenseProducts& products,
                          const float* map,
                          LinearShape shape,
                          std::int64_t tokens) {
  constexpr std::int64_t kRank = 16;
  const Weight w(shape.rows, shape.columns);
  cuda::LinearWeight weight{};
  w.set(weight.w, 0, map);
  weight.w.via = Float::bf16;
  weight.a = random_f32(kRank * shape.columns);
  weight.b = random_f32(shape.rows * kRank);
  weight.rank = kRank;
  weight.scale = 2.0f;
  weight.matrix = device_buffer<std::uint16_t>(weight.matrix_size());
  const std::int64_t r = weight.padding();
  std::vector<std::uint16_t*> dense;  // more than a cache holds
  for (std::int64_t bytes = 0; bytes < std::int64_t{256} << 20;
       bytes += 2 * shape.rows * shape.columns) {
    dense.push_back(random_bf16(shape.rows * shape.columns));
  }
  std::uint16_t *x = random_bf16(tokens * (shape.columns + r)),
                *dy = random_bf16(tokens * (shape.rows + r));
  auto *y = device_buffer<std::uint16_t>(tokens * shape.rows),
       *dx = device_buffer<std::uint16_t>(tokens * shape.columns);
  const auto fill = [&](int i, void* stream) {
    w.set(weight.w, i, map);
    return cuda::fill_matrix(weight, stream);
  };
  const auto row = [&](const char* name, double dense_seconds, double seconds) {
    std::printf(
        "| %s %lld×%lld with LoRA r = 16, %lld tokens | ≥ 93 %% of cuBLASLt on dense weights | "
        "%.0f %% (%.1f : %.1f µs) | %s |\n",
        name, static_cast<long long>(shape.rows), static_cast<long long>(shape.columns),
        static_cast<long long>(tokens), 100 * dense_seconds / seconds, seconds * 1e6,
        dense_seconds * 1e6,
        tokens < 8192                     ? "-"
        : dense_seconds >= 0.93 * seconds ? "met"
                                          : "missed");
    std::fflush(stdout);
  };
  // x and dy are where the layer before leaves them: with room behind each row.
  const auto product = [&](bool forward, int i, void* stream) {
    cuda::DenseProductArgs args{};
    args.x = forward ? x : dy;
    args.x_stride = forward ? shape.columns : shape.rows;
    args.w = dense[static_cast<std::size_t>(i) % dense.size()];
    args.w_stride = shape.columns;
    args.w_transposed = forward;
    args.rows = tokens;
    args.depth = forward ? shape.columns : shape.rows;
    args.columns = forward ? shape.rows : shape.columns;
    args.type = args.y_type = Float::bf16;
    args.y = forward ? y : dx;
    args.y_stride = args.columns;
    return cuda::multiply(products, args, stream);
  };
  // Dense products before and after what is compared with them.
  const auto compare = [&](const char* name, bool forward, const Call& call) {
    const Call once = [&](int i, void* stream) { return product(forward, i, stream); };
    const double before = seconds_of(once, "a dense product"),
                 seconds = seconds_of(call, name, w.copies);
    row(name, (before + seconds_of(once, "a dense product")) / 2, seconds);
  };
  compare("forward", true, [&](int i, void* stream) {
    const int error = fill(i, stream);
    if (error != 0) return error;
    return cuda::linear_forward(products, weight,
                                {.x = x,
                                 .tokens = tokens,
                                 .x_stride = weight.stride(),
                                 .x_and_u = x,
                                 .y = y,
                                 .y_stride = shape.rows},
                                stream);
  });
  compare("gradient of x", false, [&](int i, void* stream) {
    const int error = fill(i, stream);
    if (error != 0) return error;
    return cuda::linear_backward(products, weight,
                                 {.dy = dy,
                                  .tokens = tokens,
                                  .dy_stride = shape.rows + r,
                                  .dy_and_v = dy,
                                  .x = x,
                                  .x_stride = weight.stride(),
                                  .u = x + shape.columns,
                                  .u_stride = weight.stride(),
                                  .dx = dx,
                                  .dx_stride = shape.columns},
                                 stream);
  });
  for (std::uint16_t* p : dense) check(cudaFree(p), "memory");
  for (void* p : {static_cast<void*>(weight.matrix), static_cast<void*>(x), static_cast<void*>(dy),
                  static_cast<void*>(y), static_cast<void*>(dx)})
    check(cudaFree(p), "memory");
}

void head(const cuda::DenseProducts& products, std::int64_t vocabulary) {
  constexpr std::int64_t kTokens = 8192, kHidden = 4096;
  cuda::HeadLossArgs args{};
  args.hidden = random_bf16(kTokens * kHidden);
  args.rows = kTokens;
  args.size = kHidden;
  args.weight = random_bf16(vocabulary * kHidden);
  args.vocabulary = vocabulary;
  args.labels = on_device(std::vector<std::int64_t>(kTokens, 7));
  args.grad_scale = 1e-4f;
  args.dhidden = device_buffer<std::uint16_t>(kTokens * kHidden);
  args.largest = device_buffer<float>(kTokens);
  args.sum = device_buffer<float>(kTokens);
  args.picked = device_buffer<float>(kTokens);
  const std::int64_t chunk = cuda::head_chunk(vocabulary);
  args.logits = device_buffer<std::uint16_t>(chunk * vocabulary);
  // The products alone, of all rows at once.
  auto* all_logits = device_buffer<std::uint16_t>(kTokens * vocabulary);
  const Call products_alone = [&](int, void* stream) {
    for (const bool forward : {true, false}) {
      cuda::DenseProductArgs p{};
      p.x = forward ? args.hidden : all_logits;
      p.x_stride = forward ? kHidden : vocabulary;
      p.w = args.weight;
      p.w_stride = kHidden;
      p.w_transposed = forward;
      p.rows = kTokens;
      p.depth = forward ? kHidden : vocabulary;
      p.columns = forward ? vocabulary : kHidden;
      p.type = p.y_type = Float::bf16;
      p.y = forward ? all_logits : args.dhidden;
      p.y_stride = p.columns;
      if (const int error = cuda::multiply(products, p, stream); error != 0) return error;
    }
    return 0;
  };
  const double before = seconds_of(products_alone, "the head's products");
  const double seconds = seconds_of(
      [&](int, void* stream) { return cuda::head_loss(products, args, stream); }, "head_loss");
  const double own = (before + seconds_of(products_alone, "the head's products")) / 2;
  std::printf(
      "| head and loss, 8192 tokens, vocabulary %lld | ≥ 85 %% of the products' own time, ≤ 256 MB "
      "| %.0f %% (%.1f "
      "ms), %.0f MB | %s |\n",
      static_cast<long long>(vocabulary), 100 * own / seconds, seconds * 1e3,
      static_cast<double>(chunk * vocabulary) * 2e-6, own >= 0.85 * seconds ? "met" : "missed");
  check(cudaFree(all_logits), "memory");
}

}  // namespace

void many_tokens(const float* map) {
  const cuda::DenseProducts products{cuda::make_product_algorithms(),
                                     device_buffer<std::uint8_t>(cuda::kProductSpaceBytes),
                                     cuda::kProductSpaceBytes};
  for (const std::int64_t tokens : {512, 8192}) {
    for (const LinearShape shape : {LinearShape{4096, 4096}, LinearShape{6144, 4096},
                                    LinearShape{28672, 4096}, LinearShape{4096, 14336}}) {
      forward_and_gradient(products, map, shape, tokens);
    }
  }
  for (const std::int64_t vocabulary : {32000, 128256}) head(products, vocabulary);
}

}  // namespace lorapp::bench_gpu
