// The bodies of the kernels, written once. An ISA file includes one vocabulary (simd_<isa>.hpp),
// then this. Everything is in an anonymous namespace: nothing compiled with ISA flags may be shared
// with other files.

namespace lorapp::kernels {
namespace {

std::uint64_t calls = 0;

// One relaxed atomic a call, so that a test can prove which table ran. A compiler builtin, because
// <atomic> would leave shared inline functions in this object.
void count_call() { __atomic_fetch_add(&calls, 1, __ATOMIC_RELAXED); }

template <class T>
std::int64_t first_not_finite(const typename T::Storage* x, std::int64_t begin, std::int64_t n) {
  for (std::int64_t i = begin; i < n; ++i) {
    if (!is_finite(T::load(x[i]))) return i;
  }
  return -1;
}

// The short last block: element by element, divided by the absmax.
template <class T>
std::int64_t quantize_short_block(const QuantizeArgs& args, std::int64_t begin) {
  const auto* x = static_cast<const typename T::Storage*>(args.x);
  const std::int64_t bad = first_not_finite<T>(x, begin, args.n);
  if (bad >= 0) return bad;
  float largest = 0.0f;
  for (std::int64_t i = begin; i < args.n; ++i) {
    const float magnitude = from_bits(bits_of(T::load(x[i])) & 0x7fffffffu);
    if (magnitude > largest) largest = magnitude;
  }
  const float absmax = short_block_absmax(largest);
  args.absmax[begin / args.blocksize] = absmax;
  for (std::int64_t i = begin; i < args.n; i += 2) {
    const float first = scale_in_short_block(T::load(x[i]), absmax);
    const float second = i + 1 < args.n ? scale_in_short_block(T::load(x[i + 1]), absmax) : 0.0f;
    args.codes[i / 2] = pack_nibbles(encode4(*args.book, first), encode4(*args.book, second));
  }
  return -1;
}

template <class T>
std::int64_t quantize_blocks(const QuantizeArgs& args) {
  const auto* x = static_cast<const typename T::Storage*>(args.x);
  const Encoder encoder(*args.book);
  const std::int64_t full = args.n / args.blocksize * args.blocksize;
  for (std::int64_t begin = 0; begin < full; begin += args.blocksize) {
    const float absmax = max_abs<T>(x + begin, args.blocksize);
    if (!is_finite(absmax)) return first_not_finite<T>(x, begin, begin + args.blocksize);
    args.absmax[begin / args.blocksize] = absmax;
    const float scale = block_scale(absmax);
    for (std::int64_t i = begin; i < begin + args.blocksize; i += kGroup) {
      encoder.encode<T>(x + i, scale, args.codes + i / 2);
    }
  }
  return full < args.n ? quantize_short_block<T>(args, full) : -1;
}

std::int64_t quantize_4bit(const QuantizeArgs& args) {
  count_call();
  switch (args.x_type) {
    case Float::f32:
      return quantize_blocks<F32>(args);
    case Float::bf16:
      return quantize_blocks<Bf16>(args);
    case Float::f16:
      return quantize_blocks<F16>(args);
  }
  return -1;
}

// Element by element: the end of an array, and a block whose absmax is not finite.
template <class Out>
void dequantize_elements(const DequantizeArgs& args, std::int64_t begin, std::int64_t end) {
  auto* out = static_cast<typename Out::Storage*>(args.out);
  const float absmax = args.absmax[begin / args.blocksize];
  for (std::int64_t i = begin; i < end; ++i) {
    const float value = args.value[unpack_nibble(args.codes[i / 2], i % 2 != 0)] * absmax;
    out[i] = Out::store(round_to(args.via, value));
  }
}

template <class Out>
void dequantize_blocks(const DequantizeArgs& args) {
  auto* out = static_cast<typename Out::Storage*>(args.out);
  const ValueTable values(args.value);
  for (std::int64_t begin = 0; begin < args.n; begin += args.blocksize) {
    const std::int64_t end = begin + args.blocksize < args.n ? begin + args.blocksize : args.n;
    const float absmax = args.absmax[begin / args.blocksize];
    std::int64_t whole = is_finite(absmax) ? (end - begin) / kGroup * kGroup : 0;
    if (whole > 0) {
      // A block has only 16 different values: each is scaled and rounded once, then looked up.
      const BlockTable<Out> table(values, absmax, args.via);
      for (std::int64_t i = begin; i < begin + whole; i += kGroup) {
        table.decode(args.codes + i / 2, out + i);
      }
    }
    if (begin + whole < end) dequantize_elements<Out>(args, begin + whole, end);
  }
}

void dequantize_4bit(const DequantizeArgs& given) {
  count_call();
  DequantizeArgs args = given;
  if (args.via == args.out_type)
    args.via = Float::f32;  // it would be rounded twice to the same type
  switch (args.out_type) {
    case Float::f32:
      return dequantize_blocks<F32>(args);
    case Float::bf16:
      return dequantize_blocks<Bf16>(args);
    case Float::f16:
      return dequantize_blocks<F16>(args);
  }
}

void quantize_nested(const NestedQuantizeArgs& args) {
  count_call();
  for (std::int64_t begin = 0; begin < args.n; begin += args.blocksize) {
    const bool whole = begin + args.blocksize <= args.n;
    const std::int64_t end = whole ? begin + args.blocksize : args.n;
    float largest = 0.0f;
    for (std::int64_t i = begin; i < end; ++i) {
      const float magnitude = from_bits(bits_of(args.absmax[i] - args.offset) & 0x7fffffffu);
      if (magnitude > largest) largest = magnitude;
    }
    const float absmax = whole ? largest : short_block_absmax(largest);
    const float scale = block_scale(absmax);
    args.nested_absmax[begin / args.blocksize] = absmax;
    for (std::int64_t i = begin; i < end; ++i) {
      const float d = args.absmax[i] - args.offset;
      args.codes[i] = encode8(*args.map, whole ? d * scale : scale_in_short_block(d, absmax));
    }
  }
}

void expand_nested(const NestedExpandArgs& args) {
  count_call();
  for (std::int64_t i = 0; i < args.n; ++i) {
    const float nested_absmax = args.nested_absmax[(args.first + i) / args.blocksize];
    args.absmax[i] = decode8(args.map, args.codes[i], nested_absmax, args.offset);
  }
}

}  // namespace
}  // namespace lorapp::kernels

// Defines the one exported symbol of an ISA file; after `features`, the groups
// below that it has.
#define LORAPP_DEFINE_KERNEL_TABLE(isa, features, ...)                                 \
  const lorapp::kernels::KernelTable& lorapp::kernels::table_##isa() {                 \
    static constexpr KernelTable kTable = {#isa,                                       \
                                           features,                                   \
                                           &calls,                                     \
                                           &quantize_4bit,                             \
                                           &dequantize_4bit,                           \
                                           &quantize_nested,                           \
                                           &expand_nested __VA_OPT__(, ) __VA_ARGS__}; \
    return kTable;                                                                     \
  }
#define LORAPP_PRODUCTS &product_shape, &pack_rows, &product, &vector_product, nullptr
#define LORAPP_PRODUCTS_OF_PARTS \
  &product_shape, &pack_rows, &product, &vector_product_of_parts, &fix_rows
#define LORAPP_ROWS                                                                          \
  &rms_norm, &rms_norm_backward, &rotate, &swiglu, &swiglu_backward, &cross_entropy, &adamw, \
      &sum_of_squares, &dropout
#define LORAPP_ATTENTION &attention_forward, &attention_backward, &attention_decode
#define LORAPP_INT8 &quantize_int8
#define LORAPP_ADAMW_8BIT &adamw_8bit
