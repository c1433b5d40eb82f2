// Device memory and contexts for the kernel tests. Only the CUDA runtime's API is used, so that the
// tests run on the emulator and on a device alike.
#pragma once

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "core/dtype.h"
#include "core/weight_format.h"
#include "cuda/runtime/context.h"

namespace medusa::cuda::testing {

/// An array on the device, of exactly its size: the emulator puts a guard page after it.
template <typename T>
class DeviceVector {
 public:
  explicit DeviceVector(const std::vector<T>& values) : size_(values.size()) {
    allocate();
    const size_t bytes = size_ * sizeof(T);
    EXPECT_EQ(cudaSuccess, cudaMemcpy(data(), values.data(), bytes, cudaMemcpyHostToDevice));
  }
  /// Every byte 0xff: NaN, -1, or an id that is not there.
  explicit DeviceVector(size_t size) : size_(size) {
    allocate();
    EXPECT_EQ(cudaSuccess, cudaMemsetAsync(data(), 0xff, size_ * sizeof(T), nullptr));
  }

  T* data() const { return static_cast<T*>(storage_.get()); }
  size_t size() const { return size_; }
  std::vector<T> host() const {
    std::vector<T> values(size_);
    EXPECT_EQ(cudaSuccess, cudaDeviceSynchronize());
    EXPECT_EQ(cudaSuccess,
              cudaMemcpy(values.data(), data(), size_ * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  void allocate() {
    void* memory = nullptr;
    EXPECT_EQ(cudaSuccess, cudaMalloc(&memory, size_ == 0 ? 1 : size_ * sizeof(T)));
    storage_ = std::shared_ptr<void>(memory, [](void* p) { cudaFree(p); });
  }

  size_t size_;
  std::shared_ptr<void> storage_;
};

/// A context with a workspace of the given size, poisoned.
struct TestContext : CudaContext {
  explicit TestContext(int64_t bytes = 0, int32_t multiprocessors = 4)
      : memory(static_cast<size_t>(bytes)) {
    workspace = memory.data();
    workspace_bytes = bytes;
    num_multiprocessors = multiprocessors;
  }
  DeviceVector<unsigned char> memory;
};

/// Floats rounded to `dtype`, as bytes.
inline std::vector<unsigned char> encode(DType dtype, const std::vector<float>& values) {
  std::vector<unsigned char> bytes(values.size() * static_cast<size_t>(dtype_bytes(dtype)));
  for (size_t i = 0; i < values.size(); ++i) {
    if (dtype == DType::kFloat32) {
      std::memcpy(&bytes[i * 4], &values[i], 4);
    } else {
      const uint16_t bits = dtype == DType::kFloat16 ? from_float<Float16>(values[i]).bits
                                                     : from_float<BFloat16>(values[i]).bits;
      std::memcpy(&bytes[i * 2], &bits, 2);
    }
  }
  return bytes;
}

inline std::vector<float> decode(DType dtype, const std::vector<unsigned char>& bytes) {
  std::vector<float> values(bytes.size() / static_cast<size_t>(dtype_bytes(dtype)));
  for (size_t i = 0; i < values.size(); ++i) {
    if (dtype == DType::kFloat32) {
      std::memcpy(&values[i], &bytes[i * 4], 4);
    } else {
      uint16_t bits;
      std::memcpy(&bits, &bytes[i * 2], 2);
      values[i] = dtype == DType::kFloat16 ? to_float(Float16{bits}) : to_float(BFloat16{bits});
    }
  }
  return values;
}

/// What `dtype` makes of floats.
inline std::vector<float> rounded(DType dtype, const std::vector<float>& values) {
  return decode(dtype, encode(dtype, values));
}

/// Weights of a floating type, without scales.
inline WeightFormat weights_of(DType dtype) {
  return dtype == DType::kFloat32    ? kFloat32Weights
         : dtype == DType::kBFloat16 ? kBFloat16Weights
                                     : kFloat16Weights;
}

/// Half the distance between neighbours, relative.
inline double unit_roundoff(DType dtype) {
  return dtype == DType::kFloat32 ? 0x1p-24 : dtype == DType::kFloat16 ? 0x1p-11 : 0x1p-8;
}

}  // namespace medusa::cuda::testing
