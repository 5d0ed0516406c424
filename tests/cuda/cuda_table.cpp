// table_cuda: each entry copies what a kernel reads to the device, launches it, and copies back.
#include "cuda/device_memory.hpp"
#include "kernels/cuda_launch.hpp"

#include <cmath>
#include <stdexcept>
#include <string>

namespace lorapp::test {

using namespace kernels;

void* Mirror::copy(const void* host, std::int64_t bytes) {
  if (host == nullptr) return nullptr;
  for (const Copy& each : copies_) {
    if (each.host == host && each.bytes == bytes) return each.device;
  }
  const std::size_t past = reinterpret_cast<std::uintptr_t>(host) % 16;
  const auto size = static_cast<std::size_t>(bytes);
  memory_.emplace_back(device_allocate(past + size));
  void* device = static_cast<char*>(memory_.back().get()) + past;
  copy_to_device(device, host, size);
  copies_.push_back({host, bytes, device});
  return device;
}

void Mirror::finish(int error) {
  if (error != 0) throw std::runtime_error("a launch returned " + std::to_string(error));
  for (const Output& each : outputs_) copy_to_host(each.host, each.device, each.bytes);
}

namespace {

std::int64_t bytes_of(Float type, std::int64_t n) { return n * (type == Float::f32 ? 4 : 2); }
std::int64_t blocks_of(std::int64_t n, std::int64_t blocksize) { return ceil_div(n, blocksize); }

std::int64_t quantize_4bit(const QuantizeArgs& args) {
  Mirror mirror;
  QuantizeArgs on = args;
  unsigned long long bad = ~0ull;
  on.x = mirror.in(args.x, bytes_of(args.x_type, args.n));
  on.codes = mirror.out(args.codes, (args.n + 1) / 2);
  on.absmax = mirror.out(args.absmax, blocks_of(args.n, args.blocksize));
  mirror.finish(cuda::quantize_4bit(on, mirror.out(&bad, 1), nullptr));
  return static_cast<std::int64_t>(bad);
}

void dequantize_4bit(const DequantizeArgs& args) {
  Mirror mirror;
  mirror.finish(
      cuda::dequantize_4bit({.codes = mirror.in(args.codes, (args.n + 1) / 2),
                             .rows = 1,
                             .columns = args.n,
                             .blocksize = args.blocksize,
                             .value = args.value,
                             .absmax = mirror.in(args.absmax, blocks_of(args.n, args.blocksize)),
                             .nested = nullptr,
                             .nested_absmax = nullptr,
                             .nested_blocksize = 1,
                             .map = nullptr,
                             .offset = 0,
                             .via = args.via,
                             .out_type = args.out_type,
                             .out = mirror.out(args.out, bytes_of(args.out_type, args.n)),
                             .out_stride = args.n},
                            nullptr));
}

void quantize_nested(const NestedQuantizeArgs& args) {
  Mirror mirror;
  NestedQuantizeArgs on = args;
  on.absmax = mirror.in(args.absmax, args.n);
  on.codes = mirror.out(args.codes, args.n);
  on.nested_absmax = mirror.out(args.nested_absmax, blocks_of(args.n, args.blocksize));
  mirror.finish(cuda::quantize_nested(on, mirror.in(&args.offset, 1), nullptr));
}

void expand_nested(const NestedExpandArgs& args) {
  Mirror mirror;
  NestedExpandArgs on = args;
  on.codes = mirror.in(args.codes, args.n);
  on.nested_absmax = mirror.in(args.nested_absmax, blocks_of(args.first + args.n, args.blocksize));
  on.map = mirror.in(args.map, 256);
  on.absmax = mirror.out(args.absmax, args.n);
  mirror.finish(cuda::expand_nested(on, nullptr, nullptr));
}

void rms_norm(const RmsNormArgs& args) {
  Mirror mirror;
  RmsNormArgs on = args;
  const std::int64_t all = bytes_of(args.type, args.rows * args.size);
  on.x = mirror.in(args.x, all);
  on.weight = mirror.in(args.weight, bytes_of(args.type, args.size));
  on.y = mirror.out(args.y, all);
  on.scale = mirror.out(args.scale, args.rows);
  mirror.finish(cuda::rms_norm(on, nullptr));
}

void rms_norm_backward(const RmsNormBackwardArgs& args) {
  Mirror mirror;
  RmsNormBackwardArgs on = args;
  const std::int64_t all = bytes_of(args.type, args.rows * args.size);
  on.x = mirror.in(args.x, all);
  on.weight = mirror.in(args.weight, bytes_of(args.type, args.size));
  on.scale = mirror.in(args.scale, args.rows);
  on.dy = mirror.in(args.dy, all);
  on.dx = mirror.out(args.dx, all);
  on.dweight = mirror.out(args.dweight, args.size);
  std::vector<float> scratch(static_cast<std::size_t>(ColumnSumMap{args.rows, args.size}.scratch()),
                             std::nanf(""));
  on.scratch = mirror.out(scratch.data(), static_cast<std::int64_t>(scratch.size()));
  mirror.finish(cuda::rms_norm_backward(on, nullptr));
}

void rotate(const RotateArgs& args) {
  Mirror mirror;
  RotateArgs on = args;
  const bool none = args.tokens == 0 || args.heads == 0;
  const std::int64_t reach = none ? 0
                                  : (args.tokens - 1) * args.token_stride +
                                        (args.heads - 1) * args.head_stride + args.size;
  const std::int64_t y_reach =
      none ? 0 : rotated_begin(args, args.tokens - 1, args.heads - 1) + args.size;
  on.x = mirror.in(args.x, bytes_of(args.type, reach));
  on.cos = mirror.in(args.cos, bytes_of(args.type, args.tokens * args.size / 2));
  on.sin = mirror.in(args.sin, bytes_of(args.type, args.tokens * args.size / 2));
  on.y = mirror.out(args.y, bytes_of(args.type, y_reach));
  mirror.finish(cuda::rotate(on, nullptr));
}

void swiglu(const SwiGluArgs& args) {
  Mirror mirror;
  SwiGluArgs on = args;
  on.gate = mirror.in(args.gate, bytes_of(args.type, args.n));
  on.up = mirror.in(args.up, bytes_of(args.type, args.n));
  on.y = mirror.out(args.y, bytes_of(args.type, args.n));
  mirror.finish(cuda::swiglu(on, nullptr));
}

void swiglu_backward(const SwiGluBackwardArgs& args) {
  Mirror mirror;
  SwiGluBackwardArgs on = args;
  const std::int64_t all = bytes_of(args.type, args.n);
  on.gate = mirror.in(args.gate, all);
  on.up = mirror.in(args.up, all);
  on.dy = mirror.in(args.dy, all);
  on.dgate = mirror.out(args.dgate, all);
  on.dup = mirror.out(args.dup, all);
  mirror.finish(cuda::swiglu_backward(on, nullptr));
}

void cross_entropy(const CrossEntropyArgs& args) {
  Mirror mirror;
  CrossEntropyArgs on = args;
  on.logits = mirror.out(args.logits, bytes_of(args.type, args.rows * args.size));
  on.labels = mirror.in(args.labels, args.rows);
  on.largest = mirror.out(args.largest, args.rows);
  on.sum = mirror.out(args.sum, args.rows);
  on.picked = mirror.out(args.picked, args.rows);
  on.scratch = nullptr;
  mirror.finish(cuda::cross_entropy(on, nullptr));
}

void adamw(const AdamWArgs& args) {
  Mirror mirror;
  AdamWArgs on = args;
  on.p = mirror.out(args.p, args.n);
  on.g = mirror.in(args.g, args.n);
  on.m = mirror.out(args.m, args.n);
  on.v = mirror.out(args.v, args.n);
  mirror.finish(cuda::adamw(on, {}, nullptr));
}

void adamw_8bit(const AdamW8bitArgs& args) {
  Mirror mirror;
  AdamW8bitArgs on = args;
  const std::int64_t blocks = blocks_of(args.n, kMomentBlock);
  on.p = mirror.out(args.p, args.n);
  on.g = mirror.in(args.g, args.n);
  on.m = mirror.out(args.m, args.n);
  on.v = mirror.out(args.v, args.n);
  on.m_absmax = mirror.out(args.m_absmax, blocks);
  on.v_absmax = mirror.out(args.v_absmax, blocks);
  mirror.finish(cuda::adamw_8bit(on, {}, nullptr));
}

double sum_of_squares(const float* x, std::int64_t n) {
  Mirror mirror;
  std::vector<double> partial(cuda::kPartialSums);
  double total = 0;
  mirror.finish(cuda::sum_of_squares(mirror.in(x, n), n,
                                     mirror.out(partial.data(), cuda::kPartialSums),
                                     mirror.out(&total, 1), nullptr));
  return total;
}

void dropout(const DropoutArgs& args) {
  Mirror mirror;
  DropoutArgs on = args;
  on.x = mirror.in(args.x, bytes_of(args.type, args.n));
  on.y = mirror.out(args.y, bytes_of(args.type, args.n));
  mirror.finish(cuda::dropout(on, nullptr));
}

const std::uint64_t calls = 0;

}  // namespace

const KernelTable& table_cuda() {
  static const KernelTable table = [] {
    KernelTable t{"cuda",        0, &calls, &quantize_4bit, &dequantize_4bit, &quantize_nested,
                  &expand_nested};
    t.rms_norm = &rms_norm;
    t.rms_norm_backward = &rms_norm_backward;
    t.rotate = &rotate;
    t.swiglu = &swiglu;
    t.swiglu_backward = &swiglu_backward;
    t.cross_entropy = &cross_entropy;
    t.adamw = &adamw;
    t.adamw_8bit = &adamw_8bit;
    t.sum_of_squares = &sum_of_squares;
    t.dropout = &dropout;
    return t;
  }();
  return table;
}

}  // namespace lorapp::test
