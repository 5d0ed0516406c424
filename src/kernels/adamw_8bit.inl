// The optimizer's step over moments in 8 bits (rows_args.hpp), block by block. The bisections for
// codes dominate, and vectors would gather for them: one body, for every instruction set.
#pragma once

#include "kernels/rows_args.hpp"

namespace lorapp::kernels {
namespace {

MomentMap moment_map(const DynamicMap& values) {
  MomentMap map;
  for (int i = 0; i < 256; ++i) set_entry(map, values, i);
  return map;
}

void adamw_8bit(const AdamW8bitArgs& args) {
  count_call();
  static constexpr DynamicMap kSigned = dynamic_map(), kUnsigned = unsigned_dynamic_map();
  const MomentMap first = moment_map(kSigned), second = moment_map(kUnsigned);
  for (std::int64_t begin = 0; begin < args.n; begin += kMomentBlock) {
    const std::int64_t end = begin + kMomentBlock < args.n ? begin + kMomentBlock : args.n;
    float& m_absmax = args.m_absmax[begin / kMomentBlock];
    float& v_absmax = args.v_absmax[begin / kMomentBlock];
    float m[kMomentBlock], v[kMomentBlock];
    float m_largest = 0, v_largest = 0;
    for (std::int64_t i = begin; i < end; ++i) {
      float& m_i = m[i - begin];
      float& v_i = v[i - begin];
      m_i = decode_moment(first, args.m[i], m_absmax);
      v_i = decode_moment(second, args.v[i], v_absmax);
      args.step.update(args.p[i], args.g[i], m_i, v_i);
      const float m_size = moment_magnitude(m_i), v_size = moment_magnitude(v_i);
      if (m_size > m_largest) m_largest = m_size;
      if (v_size > v_largest) v_largest = v_size;
    }
    m_absmax = moment_absmax(m_largest);
    v_absmax = moment_absmax(v_largest);
    for (std::int64_t i = begin; i < end; ++i) {
      args.m[i] = encode_first_moment(first, m[i - begin], m_absmax);
      args.v[i] = encode_second_moment(second, v[i - begin], v_absmax);
    }
  }
}

}  // namespace
}  // namespace lorapp::kernels
