// The matrix product through cuBLASLt. Its matrices are column-major: out^T [N, R] = weight (a
// column-major K x N matrix, transposed) * in^T (a column-major K x R matrix).
#include <cublasLt.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>

#include "cuda/linear/matrix_product.h"

namespace medusa::cuda {
namespace {

constexpr size_t kWorkspaceBytes = size_t{32} << 20;
constexpr size_t kMaxAlignment = 256;
/// The row count whose algorithm serves every row count when results may not follow it.
constexpr int32_t kRowBucket = 64;

template <typename Handle, cublasStatus_t (*kDestroy)(Handle)>
struct Destroy {
  void operator()(Handle handle) const { kDestroy(handle); }
};
template <typename Handle, cublasStatus_t (*kDestroy)(Handle)>
using Owned = std::unique_ptr<std::remove_pointer_t<Handle>, Destroy<Handle, kDestroy>>;
using Operation = Owned<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using Layout = Owned<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Preference = Owned<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

void check(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw std::runtime_error(std::string("cublasLt: ") + what + ": status " +
                           std::to_string(static_cast<int>(status)));
}

cudaDataType_t data_type(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return CUDA_R_32F;
    case DType::kBFloat16:
      return CUDA_R_16BF;
    case DType::kFloat16:
      return CUDA_R_16F;
    default:
      throw std::runtime_error(
          std::string("cublasLt: weights: float32, bfloat16 or float16, got ") + dtype_name(dtype));
  }
}

Layout make_layout(cudaDataType_t type, int64_t rows, int64_t columns, int64_t stride) {
  cublasLtMatrixLayout_t layout = nullptr;
  check(cublasLtMatrixLayoutCreate(&layout, type, static_cast<uint64_t>(rows),
                                   static_cast<uint64_t>(columns), stride),
        "cublasLtMatrixLayoutCreate");
  return Layout(layout);
}

template <typename T>
void set_preference(cublasLtMatmulPreference_t preference,
                    cublasLtMatmulPreferenceAttributes_t attribute, T value) {
  check(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value),
        "cublasLtMatmulPreferenceSetAttribute");
}

/// The largest power of two up to kMaxAlignment that divides the address.
uint32_t alignment_of(const void* pointer) {
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  size_t alignment = kMaxAlignment;
  while (address % alignment != 0) alignment /= 2;
  return static_cast<uint32_t>(alignment);
}

/// What cuBLASLt needs for one shape; made at its first call.
struct PreparedProduct {
  Operation operation;
  Layout weight, in, out;
  cublasLtMatmulAlgo_t algorithm;
};

/// R, N, K, dtype, out_stride, alignment of `in` and of `out`, deterministic.
using Key = std::tuple<int32_t, int32_t, int32_t, DType, int64_t, uint32_t, uint32_t, bool>;

class CublasLtProduct : public MatrixProduct {
 public:
  CublasLtProduct() {
    check(cublasLtCreate(&handle_), "cublasLtCreate");
    if (cudaMalloc(&workspace_, kWorkspaceBytes) != cudaSuccess) {
      cublasLtDestroy(handle_);
      throw std::runtime_error("cublasLt: no memory for its workspace");
    }
  }
  ~CublasLtProduct() override {
    prepared_.clear();
    cudaFree(workspace_);
    cublasLtDestroy(handle_);
  }
  CublasLtProduct(const CublasLtProduct&) = delete;
  CublasLtProduct& operator=(const CublasLtProduct&) = delete;

  cudaError_t run(cudaStream_t stream, const MatrixProductParams& params) override {
    const PreparedProduct& product = find_prepared(params);
    const float alpha = 1, beta = params.accumulate ? 1 : 0;
    const cublasStatus_t status = cublasLtMatmul(
        handle_, product.operation.get(), &alpha, params.weight, product.weight.get(), params.in,
        product.in.get(), &beta, params.out, product.out.get(), params.out, product.out.get(),
        &product.algorithm, workspace_, kWorkspaceBytes, stream);
    return status == CUBLAS_STATUS_SUCCESS ? cudaSuccess : cudaErrorLaunchFailure;
  }

 private:
  const PreparedProduct& find_prepared(const MatrixProductParams& params) {
    const Key key = {
        params.num_rows,   params.num_outputs,      params.num_inputs,        params.dtype,
        params.out_stride, alignment_of(params.in), alignment_of(params.out), params.deterministic};
    auto found = prepared_.find(key);
    if (found == prepared_.end()) found = prepared_.emplace(key, prepare(params)).first;
    return found->second;
  }

  PreparedProduct prepare(const MatrixProductParams& params) {
    const cudaDataType_t type = data_type(params.dtype);
    cublasLtMatmulDesc_t operation = nullptr;
    check(cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F),
          "cublasLtMatmulDescCreate");
    PreparedProduct product;
    product.operation.reset(operation);
    const cublasOperation_t transposed = CUBLAS_OP_T;
    check(cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                         sizeof transposed),
          "cublasLtMatmulDescSetAttribute");
    product.weight = make_layout(type, params.num_inputs, params.num_outputs, params.num_inputs);
    product.in = make_layout(type, params.num_inputs, params.num_rows, params.num_inputs);
    product.out = make_layout(CUDA_R_32F, params.num_outputs, params.num_rows, params.out_stride);
    product.algorithm = choose_algorithm(product, params);
    return product;
  }

  /// The heuristic's first choice. When results may not follow the row count it is asked about
  /// kRowBucket rows, whatever R is, without algorithms that split the sum over K: a tile then adds
  /// up a row's products in one order, wherever the row is.
  cublasLtMatmulAlgo_t choose_algorithm(const PreparedProduct& product,
                                        const MatrixProductParams& params) {
    cublasLtMatmulPreference_t raw = nullptr;
    check(cublasLtMatmulPreferenceCreate(&raw), "cublasLtMatmulPreferenceCreate");
    const Preference preference(raw);
    set_preference(raw, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{kWorkspaceBytes});
    set_preference(raw, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment_of(params.weight));
    set_preference(raw, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(params.in));
    set_preference(raw, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment_of(params.out));
    set_preference(raw, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment_of(params.out));
    int32_t num_rows = params.num_rows;
    if (params.deterministic) {
      num_rows = kRowBucket;
      set_preference(raw, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                     static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_NONE));
    }
    const Layout in =
        make_layout(data_type(params.dtype), params.num_inputs, num_rows, params.num_inputs);
    const Layout out = make_layout(CUDA_R_32F, params.num_outputs, num_rows, params.out_stride);
    cublasLtMatmulHeuristicResult_t result;
    int num_results = 0;
    check(cublasLtMatmulAlgoGetHeuristic(handle_, product.operation.get(), product.weight.get(),
                                         in.get(), out.get(), out.get(), raw, 1, &result,
                                         &num_results),
          "cublasLtMatmulAlgoGetHeuristic");
    if (num_results == 0) {
      throw std::runtime_error("cublasLt: no algorithm for " + std::to_string(num_rows) + " x " +
                               std::to_string(params.num_inputs) + " x " +
                               std::to_string(params.num_outputs));
    }
    return result.algo;
  }

  cublasLtHandle_t handle_ = nullptr;
  void* workspace_ = nullptr;
  std::map<Key, PreparedProduct> prepared_;
};

}  // namespace

std::unique_ptr<MatrixProduct> make_matrix_product() { return std::make_unique<CublasLtProduct>(); }

}  // namespace medusa::cuda
