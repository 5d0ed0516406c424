// The gradients of products with 4-bit weights on a GPU.
#include "quant/gpu_operand.hpp"

#include <ATen/ops/as_strided.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace lorapp::detail {
namespace {

// Gradients of several layers that lie next to each other, columns of one tensor, as all of its
// rows; undefined where they do not, or where kernels could not load 16 bytes at a time.
at::Tensor neighbours(const std::vector<at::Tensor>& dy) {
  std::int64_t columns = 0;
  const auto follows = [&](const at::Tensor& each) {
    const bool fits = each.defined() && each.is_alias_of(dy[0]) && each.dim() == 2 &&
                      each.scalar_type() == at::kBFloat16 && each.stride(1) == 1 &&
                      each.stride(0) == dy[0].stride(0) &&
                      read_bf16(each) == read_bf16(dy[0]) + columns;
    if (fits) columns += each.size(1);
    return fits;
  };
  if (dy.size() < 2 || !std::all_of(dy.begin(), dy.end(), follows) || columns > dy[0].stride(0) ||
      dy[0].stride(0) % 8 != 0 || !aligned(dy[0])) {
    return {};
  }
  return at::as_strided(dy[0], {dy[0].size(0), columns}, {dy[0].stride(0), 1});
}

}  // namespace

GpuGradients gpu_backward(const GpuBackwardInput& given, const GpuWanted& wanted) {
  const std::vector<GpuLayer>& layers = given.layers;
  const auto defined = [](const at::Tensor& x) { return x.defined(); };
  const auto any = std::find_if(given.dy.begin(), given.dy.end(), defined);
  if (any == given.dy.end())
    return {{}, std::vector<at::Tensor>(layers.size()), std::vector<at::Tensor>(layers.size())};
  const at::Tensor& like = *any;
  const GpuScope scope(like.device(), kGpuLinear);
  Operand operand = operand_of(layers);
  const std::int64_t tokens = like.numel() / like.size(-1);
  const auto options = like.options().dtype(at::kBFloat16);
  const at::Tensor sample = at::empty({0}, options);
  fill(scope, operand, sample, given.matrix);
  const cuda::LinearStack stack = operand.stack();
  const std::int64_t out = stack.rows(), in = stack.columns(), padding = stack.padding();
  const bool any_masks = std::any_of(layers.begin(), layers.end(), masks);

  // Gradients of several layers that are not neighbours are gathered, with room for v.
  at::Tensor dy = layers.size() == 1 ? halves(like) : neighbours(given.dy), v, dx, da, db;
  const bool gathers = !dy.defined();
  const bool joins =
      padding > 0 && (gathers || (wanted.x && !any_masks && cuda::low_rank_joins(out, in)));
  if (gathers) {
    dy = at::empty({tokens, joins ? out + padding : out}, options);
    std::int64_t row = 0;
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const std::int64_t end = row + layers[i].w.size(0);
      const at::Tensor place = dy.slice(1, row, end);
      if (given.dy[i].defined()) {
        place.copy_(given.dy[i].reshape({tokens, end - row}));
      } else {
        place.zero_();
      }
      row = end;
    }
  }
  at::Tensor dy_and_v;
  if (joins) dy_and_v = gathers ? dy : at::empty({tokens, out + padding}, options);
  if (padding > 0 && !joins) v = at::empty({tokens, padding}, options);
  if (wanted.x) dx = at::empty({tokens, in}, options);

  const auto is_wanted = [](const std::vector<bool>& flags) {
    return std::find(flags.begin(), flags.end(), true) != flags.end();
  };
  Inputs inputs;
  at::Tensor x;
  const auto f32 = like.options().dtype(at::kFloat);
  if (is_wanted(wanted.a)) {
    const at::Tensor as_it_was = given.x();
    inputs = inputs_of(layers, as_it_was);
    x = halves(as_it_was);
    da = at::empty({padding, in}, f32);
  } else if (any_masks) {
    inputs.pointers.assign(layers.size(), nullptr);  // ranks stay apart; nothing is read
  }
  if (is_wanted(wanted.b)) db = at::empty({out, padding}, f32);
  std::vector<at::Tensor> dinput(layers.size());
  std::vector<std::uint16_t*> dinputs;
  if (any_masks && wanted.x) {
    for (std::size_t i = 0; i < layers.size(); ++i) {
      if (layers[i].low_rank != nullptr) dinput[i] = at::empty({tokens, in}, options);
      dinputs.push_back(dinput[i].defined() ? write_bf16(dinput[i]) : nullptr);
    }
  }
  const at::Tensor space = product_space(sample);
  const auto pointer = [](const at::Tensor& t) { return t.defined() ? write_bf16(t) : nullptr; };
  scope.check(
      scope.kernels().linear_backward(scope.products(space), stack,
                                      {.dy = read_bf16(dy),
                                       .tokens = tokens,
                                       .dy_stride = dy.stride(0),
                                       .dy_and_v = pointer(dy_and_v),
                                       .v = pointer(v),
                                       .x = x.defined() ? read_bf16(x) : nullptr,
                                       .x_stride = in,
                                       .inputs = inputs.data(),
                                       .u = given.u.defined() ? read_bf16(given.u) : nullptr,
                                       .u_stride = padding,
                                       .dx = pointer(dx),
                                       .dx_stride = in,
                                       .dinputs = dinputs.empty() ? nullptr : dinputs.data(),
                                       .da = da.defined() ? da.mutable_data_ptr<float>() : nullptr,
                                       .db = db.defined() ? db.mutable_data_ptr<float>() : nullptr},
                                      scope.stream()),
      "linear_backward", tokens, " rows of ", out, " times ", in, ", ranks ", padding);

  GpuGradients gradients{
      {}, std::vector<at::Tensor>(layers.size()), std::vector<at::Tensor>(layers.size())};
  if (wanted.x) {
    const std::vector<std::int64_t> shape = resized(like, in);
    for (std::size_t i = 0; i < layers.size(); ++i) {
      if (!dinput[i].defined()) continue;
      const at::Tensor through = dinput[i].reshape(shape);
      dx.add_(
          (masks(layers[i]) ? layers[i].low_rank->mask(through) : through).reshape({tokens, in}));
    }
    gradients.x = dx.to(like.scalar_type()).reshape(shape);
  }
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const int part = static_cast<int>(i);
    const std::int64_t first = stack.rank(part), rank = operand.parts[i].rank;
    if (wanted.a[i]) gradients.a[i] = da.slice(0, first, first + rank);
    if (wanted.b[i]) {
      gradients.b[i] = db.slice(0, stack.row(part), stack.row(part) + layers[i].w.size(0))
                           .slice(1, first, first + rank)
                           .contiguous();
    }
  }
  return gradients;
}

}  // namespace lorapp::detail
