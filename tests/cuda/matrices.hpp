// Matrices in double, and operands of products on the device.
#pragma once

#include "cuda/device_memory.hpp"
#include "kernels/cuda_products.hpp"
#include "kernels/float16.hpp"

#include <cmath>
#include <cstdint>
#include <vector>

namespace lorapp::test {

inline std::vector<std::uint16_t> halves(const std::vector<float>& v) {
  std::vector<std::uint16_t> h;
  for (const float each : v) h.push_back(kernels::f32_to_bf16(each));
  return h;
}

// A matrix in double, row by row.
struct Matrix {
  std::int64_t rows, columns;
  std::vector<double> data;
  double& at(std::int64_t r, std::int64_t c) {
    return data[static_cast<std::size_t>(r * columns + c)];
  }
  double at(std::int64_t r, std::int64_t c) const {
    return data[static_cast<std::size_t>(r * columns + c)];
  }
};
inline Matrix zeros(std::int64_t rows, std::int64_t columns) {
  return {rows, columns, std::vector<double>(static_cast<std::size_t>(rows * columns))};
}
inline double wide(std::uint16_t x) { return kernels::bf16_to_f32(x); }
inline double wide(float x) { return x; }
// The first `columns` of rows with a distance.
template <class T>
Matrix matrix(const std::vector<T>& v,
              std::int64_t rows,
              std::int64_t columns,
              std::int64_t stride) {
  Matrix m = zeros(rows, columns);
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < columns; ++c)
      m.at(r, c) = wide(v[static_cast<std::size_t>(r * stride + c)]);
  }
  return m;
}
inline Matrix transposed(const Matrix& a) {
  Matrix t = zeros(a.columns, a.rows);
  for (std::int64_t r = 0; r < a.rows; ++r) {
    for (std::int64_t c = 0; c < a.columns; ++c) t.at(c, r) = a.at(r, c);
  }
  return t;
}
inline Matrix operator*(const Matrix& a, const Matrix& b) {
  Matrix p = zeros(a.rows, b.columns);
  for (std::int64_t r = 0; r < a.rows; ++r) {
    for (std::int64_t k = 0; k < a.columns; ++k) {
      for (std::int64_t c = 0; c < b.columns; ++c) p.at(r, c) += a.at(r, k) * b.at(k, c);
    }
  }
  return p;
}
inline Matrix operator*(double s, Matrix a) {
  for (double& each : a.data) each *= s;
  return a;
}
inline Matrix operator+(Matrix a, const Matrix& b) {
  for (std::size_t i = 0; i < a.data.size(); ++i) a.data[i] += b.data[i];
  return a;
}
inline double error(const Matrix& found, const Matrix& expected) {
  double squares = 0, all = 1e-30;
  for (std::size_t i = 0; i < expected.data.size(); ++i) {
    squares += (found.data[i] - expected.data[i]) * (found.data[i] - expected.data[i]);
    all += expected.data[i] * expected.data[i];
  }
  return std::sqrt(squares / all);  // of the root mean squares; NaN compares as no number
}

template <class T>
const T* all_of(Mirror& mirror, const std::vector<T>& v) {
  return mirror.in(v.data(), static_cast<std::int64_t>(v.size()));
}
template <class T>
T* all_of(Mirror& mirror, std::vector<T>& v) {
  return mirror.out(v.data(), static_cast<std::int64_t>(v.size()));
}

inline kernels::cuda::DenseProducts products_with(Mirror& mirror,
                                                  std::vector<std::uint8_t>& space) {
  return {kernels::cuda::make_product_algorithms(), all_of(mirror, space), space.size()};
}

}  // namespace lorapp::test
