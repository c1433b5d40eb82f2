// Correct kernels are right under every schedule and poison, and nothing is reported about them.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <thread>

#include "simt.h"
#include "testing/kernels.h"

namespace simt_testing {
namespace {

constexpr int kNumSeeds = 8;

template <typename T>
std::vector<unsigned char> bytes(const std::vector<T>& values) {
  std::vector<unsigned char> result(values.size() * sizeof(T));
  std::memcpy(result.data(), values.data(), result.size());
  return result;
}

std::vector<float> random_values(size_t size, unsigned seed) {
  std::mt19937 generator(seed);
  std::uniform_int_distribution<int> distribution(-8, 8);
  std::vector<float> values(size);
  for (float& value : values) value = static_cast<float>(distribution(generator)) / 8;
  return values;
}

TEST(Schedule, BlockSum) {
  for (const int threads : {32, 96, 256, 1024}) {
    const int num_blocks = 3, length = 777;
    const std::vector<float> input = random_values(num_blocks * length, 1);
    std::vector<float> sums(num_blocks);
    EXPECT_EQ("", simt::compare_schedules(
                      [&] {
                        EXPECT_EQ(cudaSuccess, block_sum(input.data(), sums.data(), num_blocks,
                                                         length, threads));
                        return bytes(sums);
                      },
                      kNumSeeds));
    for (int b = 0; b < num_blocks; ++b) {
      const float* begin = input.data() + b * length;
      EXPECT_EQ(std::accumulate(begin, begin + length, 0.0f), sums[b]) << threads;
    }
  }
}

TEST(Schedule, Scan) {
  for (const int length : {32, 320, 1024}) {
    std::vector<int> input(length), output(length), expected(length);
    std::iota(input.begin(), input.end(), -100);
    std::partial_sum(input.begin(), input.end(), expected.begin());
    EXPECT_EQ("", simt::compare_schedules(
                      [&] {
                        EXPECT_EQ(cudaSuccess, scan(input.data(), output.data(), length));
                        return bytes(output);
                      },
                      kNumSeeds));
    EXPECT_EQ(expected, output);
  }
}

template <typename T>
void test_matmul(int m, int n, int k) {
  const std::vector<float> a = random_values(static_cast<size_t>(m) * k, 2);
  const std::vector<float> b = random_values(static_cast<size_t>(k) * n, 3);
  T *device_a = nullptr, *device_b = nullptr;  // aligned, and guarded after their ends
  ASSERT_EQ(cudaSuccess, cudaMalloc(&device_a, a.size() * sizeof(T)));
  ASSERT_EQ(cudaSuccess, cudaMalloc(&device_b, b.size() * sizeof(T)));
  for (size_t i = 0; i < a.size(); ++i) device_a[i] = a[i];
  for (size_t i = 0; i < b.size(); ++i) device_b[i] = b[i];
  std::vector<float> c(static_cast<size_t>(m) * n);
  EXPECT_EQ("", simt::compare_schedules(
                    [&] {
                      EXPECT_EQ(cudaSuccess, matmul(device_a, device_b, c.data(), m, n, k));
                      return bytes(c);
                    },
                    kNumSeeds));
  for (int row = 0; row < m; ++row) {
    for (int column = 0; column < n; ++column) {
      float sum = 0;  // exact: the values are small multiples of 1/8
      for (int i = 0; i < k; ++i) sum += a[row * k + i] * b[i * n + column];
      ASSERT_EQ(sum, c[row * n + column]) << row << ", " << column;
    }
  }
  EXPECT_EQ(cudaSuccess, cudaFree(device_a));
  EXPECT_EQ(cudaSuccess, cudaFree(device_b));
}

TEST(Schedule, MatmulBfloat16) {
  test_matmul<__nv_bfloat16>(64, 64, 32);
  test_matmul<__nv_bfloat16>(128, 64, 96);
}
TEST(Schedule, MatmulHalf) { test_matmul<__half>(64, 128, 64); }

TEST(Schedule, Histogram) {
  std::vector<uint8_t> input(5000);
  std::vector<int> expected(256);
  for (size_t i = 0; i < input.size(); ++i) {
    input[i] = static_cast<uint8_t>(i * i % 251);
    ++expected[input[i]];
  }
  std::vector<int> counts;
  EXPECT_EQ("", simt::compare_schedules(
                    [&] {
                      counts.assign(256, 0);
                      EXPECT_EQ(cudaSuccess, histogram(input.data(), counts.data(), 5000));
                      return bytes(counts);
                    },
                    kNumSeeds));
  EXPECT_EQ(expected, counts);
}

TEST(Schedule, Coordinates) {
  const dim3 grid(3, 2, 2), block(4, 3, 5);
  std::vector<uint32_t> output(3 * 2 * 2 * 4 * 3 * 5), expected;
  for (uint32_t b = 0; b < 12; ++b) {
    for (uint32_t t = 0; t < 60; ++t) {
      expected.push_back((b % 3) << 20 | (b / 3 % 2) << 16 | (b / 6) << 12 | (t % 4) << 8 |
                         (t / 4 % 3) << 4 | t / 12);
    }
  }
  ASSERT_EQ(cudaSuccess, coordinates(output.data(), grid, block));
  EXPECT_EQ(expected, output);
}

TEST(Schedule, TwoThreadsLaunchAtOnce) {
  const std::vector<float> input = random_values(4000, 5);
  const float expected = std::accumulate(input.begin(), input.end(), 0.0f);
  float sums[2] = {};
  const auto run = [&](float* sum) {
    for (int i = 0; i < 20; ++i) {
      *sum = 0;
      ASSERT_EQ(cudaSuccess, block_sum(input.data(), sum, 1, 4000, 128));
      ASSERT_EQ(expected, *sum);
    }
  };
  std::thread other(run, sums);
  run(sums + 1);
  other.join();
}

}  // namespace
}  // namespace simt_testing
