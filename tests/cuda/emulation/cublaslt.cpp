// cuBLASLt's products, element by element.
#include "kernels/float16.hpp"

#include <cublasLt.h>

using namespace lorapp::kernels;

namespace {

Float float_of(cudaDataType_t type) {
  return type == CUDA_R_16BF ? Float::bf16 : type == CUDA_R_16F ? Float::f16 : Float::f32;
}

float element(const void* data, cudaDataType_t type, std::int64_t i) {
  if (type == CUDA_R_32F) return static_cast<const float*>(data)[i];
  const std::uint16_t bits = static_cast<const std::uint16_t*>(data)[i];
  return float_of(type) == Float::bf16 ? bf16_to_f32(bits) : f16_to_f32(bits);
}

void set_element(void* data, cudaDataType_t type, std::int64_t i, float x) {
  if (type == CUDA_R_32F) {
    static_cast<float*>(data)[i] = x;
  } else {
    static_cast<std::uint16_t*>(data)[i] =
        float_of(type) == Float::bf16 ? f32_to_bf16(x) : f32_to_f16(x);
  }
}

struct Sizes {
  std::uint64_t m, n, k;
};

// False where the operands do not fit together.
bool sizes_of(const cublasLtMatmulDescOpaque& what,
              const cublasLtMatrixLayoutOpaque& a,
              const cublasLtMatrixLayoutOpaque& b,
              const cublasLtMatrixLayoutOpaque& d,
              Sizes& sizes) {
  const bool ta = what.transa == CUBLAS_OP_T, tb = what.transb == CUBLAS_OP_T;
  sizes = {ta ? a.columns : a.rows, tb ? b.rows : b.columns, ta ? a.rows : a.columns};
  const auto fits = [](const cublasLtMatrixLayoutOpaque& x) {
    return x.leading >= static_cast<std::int64_t>(x.rows);
  };
  return sizes.k == (tb ? b.columns : b.rows) && d.rows == sizes.m && d.columns == sizes.n &&
         a.type == b.type && fits(a) && fits(b) && fits(d);
}

}  // namespace

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = new cublasLtContext;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* d,
                                        cublasComputeType_t compute,
                                        cudaDataType_t scale) {
  if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  *d = new cublasLtMatmulDescOpaque;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d) {
  delete d;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void* value,
                                              std::size_t size) {
  const auto set = [&](auto& field) {
    if (size != sizeof field) return CUBLAS_STATUS_INVALID_VALUE;
    std::memcpy(&field, value, size);
    return CUBLAS_STATUS_SUCCESS;
  };
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return set(d->transa);
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return set(d->transb);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      return set(d->epilogue);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      return set(d->bias);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
      return set(d->bias_type);
  }
  return CUBLAS_STATUS_INVALID_VALUE;
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout,
                                          cudaDataType_t type,
                                          std::uint64_t rows,
                                          std::uint64_t columns,
                                          std::int64_t leading) {
  *layout = new cublasLtMatrixLayoutOpaque{type, rows, columns, leading};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete layout;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  *preference = new cublasLtMatmulPreferenceOpaque;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  delete preference;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void* value,
                                                    std::size_t size) {
  if (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) {
    return size == sizeof(std::size_t) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
  }
  if (size != sizeof(std::uint32_t)) return CUBLAS_STATUS_INVALID_VALUE;
  if (attribute == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK) return CUBLAS_STATUS_SUCCESS;
  std::memcpy(&preference->alignment[attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], value,
              size);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t,
                                              cublasLtMatmulDesc_t what,
                                              cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t,
                                              cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference,
                                              int requested,
                                              cublasLtMatmulHeuristicResult_t* results,
                                              int* found) {
  Sizes sizes;
  *found = requested > 0 && sizes_of(*what, *a, *b, *d, sizes) ? 1 : 0;
  if (*found > 0) {
    results[0] = {};
    for (int i = 0; i < 4; ++i) results[0].algo.data[i] = preference->alignment[i];
  }
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle,
                              cublasLtMatmulDesc_t what,
                              const void* alpha,
                              const void* a,
                              cublasLtMatrixLayout_t la,
                              const void* b,
                              cublasLtMatrixLayout_t lb,
                              const void* beta,
                              const void* c,
                              cublasLtMatrixLayout_t lc,
                              void* d,
                              cublasLtMatrixLayout_t ld,
                              const cublasLtMatmulAlgo_t* algorithm,
                              void*,
                              std::size_t,
                              cudaStream_t) {
  Sizes sizes;
  const bool in_place = c == d && lc == ld;
  const bool apart = c != d && lc->rows == ld->rows && lc->columns == ld->columns &&
                     lc->type == ld->type && lc->leading >= static_cast<std::int64_t>(lc->rows);
  if (handle == nullptr || algorithm == nullptr || !(in_place || apart) ||
      !sizes_of(*what, *la, *lb, *ld, sizes))
    return CUBLAS_STATUS_INVALID_VALUE;
  const void* operands[4] = {a, b, c, d};
  for (int i = 0; i < 4; ++i) {  // an algorithm reads as its choice was told that it may
    if (reinterpret_cast<std::uintptr_t>(operands[i]) % algorithm->data[i] != 0) {
      return CUBLAS_STATUS_INVALID_VALUE;
    }
  }
  const float scale = *static_cast<const float*>(alpha), keep = *static_cast<const float*>(beta);
  const auto at = [](const cublasLtMatrixLayoutOpaque& layout, std::uint64_t row,
                     std::uint64_t column) {
    return static_cast<std::int64_t>(row) + static_cast<std::int64_t>(column) * layout.leading;
  };
  for (std::uint64_t j = 0; j < sizes.n; ++j) {
    for (std::uint64_t i = 0; i < sizes.m; ++i) {
      float sum = 0.0f;
      for (std::uint64_t k = 0; k < sizes.k; ++k) {
        const float x =
            element(a, la->type, what->transa == CUBLAS_OP_T ? at(*la, k, i) : at(*la, i, k));
        const float y =
            element(b, lb->type, what->transb == CUBLAS_OP_T ? at(*lb, j, k) : at(*lb, k, j));
        sum += x * y;
      }
      float result = scale * sum;
      if (keep != 0.0f)
        result += keep * element(c, lc->type, at(*lc, i, j));  // else c may be anything
      if (what->epilogue == CUBLASLT_EPILOGUE_BIAS)
        result += element(what->bias, what->bias_type, static_cast<std::int64_t>(i));
      set_element(d, ld->type, at(*ld, i, j), result);
    }
  }
  return CUBLAS_STATUS_SUCCESS;
}
const char* cublasLtGetStatusString(cublasStatus_t status) {
  return status == CUBLAS_STATUS_NOT_SUPPORTED ? "CUBLAS_STATUS_NOT_SUPPORTED"
         : status == CUBLAS_STATUS_SUCCESS     ? "CUBLAS_STATUS_SUCCESS"
                                               : "CUBLAS_STATUS_INVALID_VALUE";
}
