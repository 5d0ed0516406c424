// The launchers as C functions, for peers.py beside it, which calls them through ctypes with the
// addresses of PyTorch's tensors. Each returns what its launcher does; peers_error_text says it in
// words. Matrices are bf16, weights NF4 with nested scales.
#include "kernels/cuda_choose.hpp"
#include "kernels/cuda_products.hpp"

#include <lorapp/quant/nf4.hpp>

#include <cstddef>
#include <cstdint>

namespace {

using namespace lorapp;
using namespace lorapp::kernels;
using Half = std::uint16_t;

constexpr Codebook4 kBook = nf4_codebook();

// peers_library.py has these two once more.
struct Weight {
  const std::uint8_t* codes;
  const std::uint8_t* nested;
  const float* nested_absmax;
  const float* map;
  std::int64_t rows, columns, blocksize, nested_blocksize;
  float offset;
};
struct LowRank {
  const float* a;  // null: none
  const float* b;
  std::int64_t rank;
  float scale;
};

// The weight of DequantizeRowsArgs and its like.
template <class Args>
void set(Args& args, const Weight& w) {
  args.codes = w.codes;
  args.rows = w.rows;
  args.columns = w.columns;
  args.blocksize = w.blocksize;
  args.value = kBook.value;
  args.nested = w.nested;
  args.nested_absmax = w.nested_absmax;
  args.nested_blocksize = w.nested_blocksize;
  args.map = w.map;
  args.offset = w.offset;
}

cuda::LinearWeight linear_weight(const Weight& w, const LowRank& low_rank, Half* matrix) {
  cuda::LinearWeight weight{};
  set(weight.w, w);
  weight.w.via = Float::bf16;
  weight.a = low_rank.a;
  weight.b = low_rank.b;
  weight.rank = low_rank.rank;
  weight.scale = low_rank.scale;
  weight.matrix = matrix;
  return weight;
}

}  // namespace

extern "C" {

std::int64_t peers_weight_bytes() { return sizeof(Weight); }
std::int64_t peers_low_rank_bytes() { return sizeof(LowRank); }
std::int64_t peers_padded_rank(std::int64_t rank) { return cuda::padded_rank(rank); }
std::int64_t peers_head_chunk(std::int64_t vocabulary) { return cuda::head_chunk(vocabulary); }
const char* peers_error_text(int error) { return cuda::error_text(error); }

std::int64_t peers_space_bytes() { return static_cast<std::int64_t>(cuda::kProductSpaceBytes); }
int peers_low_rank_joins(std::int64_t copied, std::int64_t added) {
  return cuda::low_rank_joins(copied, added);
}

/// `space` has peers_space_bytes().
void* peers_products_new(void* space) {
  return new cuda::DenseProducts{cuda::make_product_algorithms(), space, cuda::kProductSpaceBytes};
}
void peers_products_delete(void* products) { delete static_cast<cuda::DenseProducts*>(products); }

/// 1 where a product of so many rows is small_product's.
int peers_is_small(int capability, int processors, std::int64_t tokens, const Weight* w) {
  return cuda::choose_product({capability, processors}, tokens, w->rows, w->columns,
                              w->blocksize) == cuda::ProductKind::small;
}

int peers_dequantize(const Weight* w, Half* out, void* stream) {
  cuda::DequantizeRowsArgs args{};
  set(args, *w);
  args.via = args.out_type = Float::bf16;
  args.out = out;
  args.out_stride = w->columns;
  return cuda::dequantize_4bit(args, stream);
}

int peers_small_product(
    const Weight* w, const Half* x, std::int64_t tokens, Half* y, void* stream) {
  cuda::SmallProductArgs args{};
  set(args, *w);
  args.x = x;
  args.tokens = tokens;
  args.y = y;
  return cuda::small_product(args, stream);
}

int peers_fill_matrix(const Weight* w, const LowRank* low_rank, Half* matrix, void* stream) {
  return cuda::fill_matrix(linear_weight(*w, *low_rank, matrix), stream);
}

int peers_linear_forward(void* products,
                         const Weight* w,
                         const LowRank* low_rank,
                         Half* matrix,
                         const Half* x,
                         std::int64_t tokens,
                         Half* x_and_u,
                         Half* u,
                         Half* y,
                         void* stream) {
  return cuda::linear_forward(*static_cast<cuda::DenseProducts*>(products),
                              linear_weight(*w, *low_rank, matrix),
                              {.x = x,
                               .tokens = tokens,
                               .x_stride = w->columns,
                               .x_and_u = x_and_u,
                               .u = u,
                               .y = y,
                               .y_stride = w->rows},
                              stream);
}

/// u is [tokens, padded_rank], as forward leaves it where it has no x_and_u.
int peers_linear_backward(void* products,
                          const Weight* w,
                          const LowRank* low_rank,
                          Half* matrix,
                          const Half* dy,
                          std::int64_t tokens,
                          Half* dy_and_v,
                          Half* v,
                          const Half* x,
                          const Half* u,
                          Half* dx,
                          float* da,
                          float* db,
                          void* stream) {
  return cuda::linear_backward(*static_cast<cuda::DenseProducts*>(products),
                               linear_weight(*w, *low_rank, matrix),
                               {.dy = dy,
                                .tokens = tokens,
                                .dy_stride = w->rows,
                                .dy_and_v = dy_and_v,
                                .v = v,
                                .x = x,
                                .x_stride = w->columns,
                                .u = u,
                                .u_stride = cuda::padded_rank(low_rank->rank),
                                .dx = dx,
                                .dx_stride = w->columns,
                                .da = da,
                                .db = db},
                               stream);
}

int peers_head_loss(void* products,
                    const Half* hidden,
                    std::int64_t rows,
                    std::int64_t size,
                    const Half* weight,
                    std::int64_t vocabulary,
                    const std::int64_t* labels,
                    float grad_scale,
                    Half* dhidden,
                    float* largest,
                    float* sum,
                    float* picked,
                    Half* logits,
                    std::int64_t chunk,
                    void* stream) {
  return cuda::head_loss(*static_cast<cuda::DenseProducts*>(products),
                         {hidden, rows, size, weight, vocabulary, labels, grad_scale, dhidden,
                          largest, sum, picked, logits},
                         stream, chunk);
}

int peers_rms_norm(const Half* x,
                   std::int64_t rows,
                   std::int64_t size,
                   const Half* weight,
                   float eps,
                   Half* y,
                   float* scale,
                   void* stream) {
  return cuda::rms_norm({x, Float::bf16, rows, size, weight, eps, y, scale}, stream);
}

int peers_rms_norm_backward(const Half* x,
                            std::int64_t rows,
                            std::int64_t size,
                            const Half* weight,
                            const float* scale,
                            const Half* dy,
                            Half* dx,
                            void* stream) {
  return cuda::rms_norm_backward({x, Float::bf16, rows, size, weight, scale, dy, dx, nullptr},
                                 stream);
}

int peers_rotate(const Half* x,
                 std::int64_t tokens,
                 std::int64_t heads,
                 std::int64_t size,
                 const Half* cos,
                 const Half* sin,
                 int back,
                 Half* y,
                 void* stream) {
  return cuda::rotate(
      {x, Float::bf16, tokens, heads, size, heads * size, size, cos, sin, back != 0, y}, stream);
}

int peers_swiglu(const Half* gate, const Half* up, std::int64_t n, Half* y, void* stream) {
  return cuda::swiglu({gate, up, Float::bf16, n, y}, stream);
}

int peers_swiglu_backward(const Half* gate,
                          const Half* up,
                          const Half* dy,
                          std::int64_t n,
                          Half* dgate,
                          Half* dup,
                          void* stream) {
  return cuda::swiglu_backward({gate, up, dy, Float::bf16, n, dgate, dup}, stream);
}

}  // extern "C"
