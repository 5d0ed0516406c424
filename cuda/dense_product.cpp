// Products of dense matrices by cuBLASLt.
#include "kernels/cuda_products.hpp"

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <map>
#include <mutex>

namespace lorapp::kernels::cuda {
namespace {

cudaDataType_t data_type(Float type) {
  return type == Float::bf16 ? CUDA_R_16BF : type == Float::f16 ? CUDA_R_16F : CUDA_R_32F;
}

// The power of two that an address is a multiple of, as far as cuBLASLt asks.
std::uint32_t alignment_of(const void* p) {
  const auto address = reinterpret_cast<std::uintptr_t>(p);
  std::uint32_t alignment = 256;
  while (address % alignment != 0) alignment /= 2;
  return alignment;
}

// What the choice of an algorithm depends on.
using Key = std::array<std::int64_t, 16>;

Key key_of(const DenseProductArgs& args, std::size_t bytes) {
  return {args.rows,
          args.depth,
          args.columns,
          args.x_stride,
          args.w_stride,
          args.y_stride,
          (args.x_transposed ? 1 : 0) + (args.w_transposed ? 2 : 0) + (args.beta != 0.0f ? 4 : 0),
          static_cast<std::int64_t>(args.type) * 4 + static_cast<std::int64_t>(args.y_type),
          alignment_of(args.x),
          alignment_of(args.w),
          alignment_of(args.y),
          args.bias != nullptr,
          alignment_of(args.bias),
          args.beta != 0.0f && args.c != nullptr ? args.c_stride : 0,
          args.beta != 0.0f ? alignment_of(args.c) : 0,
          static_cast<std::int64_t>(bytes)};
}

// Objects of cuBLASLt that go when their scope ends.
template <class T, cublasStatus_t (*destroy)(T)>
struct Owned {
  Owned() = default;
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  ~Owned() {
    if (object != nullptr) destroy(object);
  }
  T object = nullptr;
};
using Description = Owned<cublasLtMatmulDesc_t, &cublasLtMatmulDescDestroy>;
using Layout = Owned<cublasLtMatrixLayout_t, &cublasLtMatrixLayoutDestroy>;
using Preference = Owned<cublasLtMatmulPreference_t, &cublasLtMatmulPreferenceDestroy>;

// The first failure of a row of calls.
class Status {
 public:
  void operator()(cublasStatus_t status) {
    if (first_ == CUBLAS_STATUS_SUCCESS) first_ = status;
  }
  bool good() const { return first_ == CUBLAS_STATUS_SUCCESS; }
  int code() const { return good() ? 0 : kProductStatus + static_cast<int>(first_); }

 private:
  cublasStatus_t first_ = CUBLAS_STATUS_SUCCESS;
};

}  // namespace

// Threads hold `mutex` while they look at the rest: what stands there stays.
struct ProductAlgorithms::State {
  std::mutex mutex;
  cublasLtHandle_t handle = nullptr;
  std::map<Key, cublasLtMatmulAlgo_t> algorithms;
};

ProductAlgorithms::ProductAlgorithms() : state_(new State) {}

ProductAlgorithms::~ProductAlgorithms() {
  if (state_->handle != nullptr) cublasLtDestroy(state_->handle);
}

std::size_t ProductAlgorithms::shapes() const {
  const std::lock_guard lock(state_->mutex);
  return state_->algorithms.size();
}

std::shared_ptr<ProductAlgorithms> make_product_algorithms() {
  return std::make_shared<ProductAlgorithms>();
}

// cuBLASLt counts column by column: what lies row by row is the transposed matrix there, so that
// yᵀ = op(w)ᵀ · op(x)ᵀ.
int multiply(const DenseProducts& products, const DenseProductArgs& args, void* stream) {
  if (args.rows == 0 || args.columns == 0) return 0;
  const bool fits = args.depth > 0 && (args.bias == nullptr ||
                                       (args.type == args.y_type && alignment_of(args.bias) >= 16));
  if (!fits) return cudaErrorInvalidValue;
  Status status;
  // cuBLASLt wants a multiple of 256 bytes.
  const std::size_t past = reinterpret_cast<std::uintptr_t>(products.space) % 256;
  const std::size_t skipped = past == 0 ? 0 : std::min(256 - past, products.bytes);
  void* space = static_cast<char*>(products.space) + skipped;
  const std::size_t bytes = products.bytes - skipped;
  ProductAlgorithms::State& state = *products.algorithms->state_;
  std::unique_lock lock(state.mutex);
  if (state.handle == nullptr) status(cublasLtCreate(&state.handle));
  Description description;
  Layout w, x, added, y;
  status(cublasLtMatmulDescCreate(&description.object, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  const auto describe = [&](cublasLtMatmulDescAttributes_t attribute, const auto& value) {
    if (status.good()) {
      status(cublasLtMatmulDescSetAttribute(description.object, attribute, &value, sizeof value));
    }
  };
  describe(CUBLASLT_MATMUL_DESC_TRANSA, args.w_transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
  describe(CUBLASLT_MATMUL_DESC_TRANSB, args.x_transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
  if (args.bias != nullptr) {
    describe(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    describe(CUBLASLT_MATMUL_DESC_BIAS_POINTER, args.bias);
    describe(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, data_type(args.type));
  }
  const auto lay = [&](Layout& layout, Float type, std::int64_t rows, std::int64_t columns,
                       std::int64_t stride) {
    if (status.good()) {
      status(cublasLtMatrixLayoutCreate(&layout.object, data_type(type),
                                        static_cast<std::uint64_t>(columns),
                                        static_cast<std::uint64_t>(rows), stride));
    }
  };
  lay(w, args.type, args.w_transposed ? args.columns : args.depth,
      args.w_transposed ? args.depth : args.columns, args.w_stride);
  lay(x, args.type, args.x_transposed ? args.depth : args.rows,
      args.x_transposed ? args.rows : args.depth, args.x_stride);
  lay(y, args.y_type, args.rows, args.columns, args.y_stride);
  const bool has_c = args.c != nullptr && args.beta != 0.0f;
  const void* c = has_c ? args.c : args.y;
  if (has_c) lay(added, args.y_type, args.rows, args.columns, args.c_stride);
  const cublasLtMatrixLayout_t c_layout = has_c ? added.object : y.object;
  if (!status.good()) return status.code();

  const Key key = key_of(args, bytes);
  auto known = state.algorithms.find(key);
  if (known == state.algorithms.end()) {
    Preference preference;
    status(cublasLtMatmulPreferenceCreate(&preference.object));
    if (!status.good()) return status.code();
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
      if (status.good()) {
        status(cublasLtMatmulPreferenceSetAttribute(preference.object, attribute, &value,
                                                    sizeof value));
      }
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, bytes);
    // Parts of a long sum are added in float32 as well, not in the type of y.
    prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
           std::uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
    // Without these it counts on multiples of 256 bytes.
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment_of(args.w));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(args.x));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment_of(c));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment_of(args.y));
    cublasLtMatmulHeuristicResult_t found;
    int count = 0;
    status(cublasLtMatmulAlgoGetHeuristic(state.handle, description.object, w.object, x.object,
                                          c_layout, y.object, preference.object, 1, &found,
                                          &count));
    if (status.good() && count == 0) status(CUBLAS_STATUS_NOT_SUPPORTED);
    if (!status.good()) return status.code();
    known = state.algorithms.emplace(key, found.algo).first;
  }
  const cublasLtMatmulAlgo_t algorithm = known->second;
  lock.unlock();
  status(cublasLtMatmul(state.handle, description.object, &args.alpha, args.w, w.object, args.x,
                        x.object, &args.beta, c, c_layout, args.y, y.object, &algorithm, space,
                        bytes, static_cast<cudaStream_t>(stream)));
  return status.code();
}

const char* error_text(int error) {
  if (error < kProductStatus) return cudaGetErrorString(static_cast<cudaError_t>(error));
  return cublasLtGetStatusString(static_cast<cublasStatus_t>(error - kProductStatus));
}

}  // namespace lorapp::kernels::cuda
