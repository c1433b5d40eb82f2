// The matrix product of the emulated device, by the CPU: inputs of the weights' type, sums in
// float32 over ascending k, each row for itself.
#include "cuda/linear/matrix_product.h"

#include <deque>
#include <vector>

namespace medusa::cuda {
namespace {

std::vector<float> read(const void* data, DType dtype, int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    values[i] = dtype == DType::kFloat32   ? static_cast<const float*>(data)[i]
                : dtype == DType::kFloat16 ? to_float(static_cast<const Float16*>(data)[i])
                                           : to_float(static_cast<const BFloat16*>(data)[i]);
  }
  return values;
}

void multiply(const MatrixProductParams& p) {
  const std::vector<float> in = read(p.in, p.dtype, int64_t{p.num_rows} * p.num_inputs);
  const std::vector<float> weight = read(p.weight, p.dtype, int64_t{p.num_outputs} * p.num_inputs);
  for (int32_t r = 0; r < p.num_rows; ++r) {
    for (int32_t n = 0; n < p.num_outputs; ++n) {
      float sum = 0;
      for (int32_t k = 0; k < p.num_inputs; ++k) {
        sum += in[static_cast<size_t>(r) * p.num_inputs + k] *
               weight[static_cast<size_t>(n) * p.num_inputs + k];
      }
      float& out = p.out[r * p.out_stride + n];
      out = p.accumulate ? out + sum : sum;
    }
  }
}

class CpuProduct : public MatrixProduct {
 public:
  cudaError_t run(cudaStream_t stream, const MatrixProductParams& params) override {
    calls_.push_back(params);
    return cudaLaunchHostFunc(
        stream, [](void* call) { multiply(*static_cast<MatrixProductParams*>(call)); },
        &calls_.back());
  }

 private:
  std::deque<MatrixProductParams> calls_;  // that a graph may make again
};

}  // namespace

std::unique_ptr<MatrixProduct> make_matrix_product() { return std::make_unique<CpuProduct>(); }

}  // namespace medusa::cuda
