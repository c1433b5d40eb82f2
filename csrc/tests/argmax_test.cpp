#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "tests/kernels_under_test.h"

namespace medusa {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

template <typename T>
std::vector<int32_t> argmax(const std::vector<std::vector<float>>& rows, DType dtype,
                            int num_threads = 2) {
  const int64_t width = static_cast<int64_t>(rows[0].size()), stride = width + 3;
  std::vector<T> logits(rows.size() * stride, from_float<T>(1e4f));  // gaps larger than any logit
  for (size_t r = 0; r < rows.size(); ++r) {
    for (int64_t i = 0; i < width; ++i) logits[r * stride + i] = from_float<T>(rows[r][i]);
  }
  std::vector<int32_t> out(rows.size(), -1);
  ArgmaxParams p;
  p.num_rows = static_cast<int32_t>(rows.size());
  p.width = width;
  p.dtype = dtype;
  p.logits = logits.data();
  p.row_stride = stride;
  p.out = out.data();
  cpu::CpuContext context(num_threads);
  kernels_under_test().argmax(context, p);
  return out;
}

int32_t argmax_of(const std::vector<float>& row) {
  return argmax<float>({row}, DType::kFloat32)[0];
}

TEST(Argmax, FindsTheLargestAtEveryPlace) {
  for (int width : {1, 2, 15, 16, 17, 63, 64, 65, 1023, 1024, 1025, 3000}) {
    for (int place : {0, 1, width / 2, width - 2, width - 1}) {
      if (place < 0 || place >= width) continue;
      std::vector<float> row(width);
      for (int i = 0; i < width; ++i) row[i] = -1.0f - static_cast<float>(i % 7);
      row[place] = -0.5f;
      EXPECT_EQ(argmax_of(row), place) << width;
      EXPECT_EQ(argmax<BFloat16>({row}, DType::kBFloat16)[0], place) << width;
      EXPECT_EQ(argmax<Float16>({row}, DType::kFloat16)[0], place) << width;
    }
  }
}

TEST(Argmax, TiesGoToTheLowestId) {
  std::vector<float> row(5000, 0.0f);
  row[4100] = row[1500] = row[1029] = row[2047] = 3.0f;
  EXPECT_EQ(argmax_of(row), 1029);
  EXPECT_EQ(argmax_of(std::vector<float>(77, 2.0f)), 0);
  EXPECT_EQ(argmax_of({-0.0f, 0.0f}), 0);
}

TEST(Argmax, NothingButAFiniteNumberWins) {
  std::vector<float> row(2000, kNan);
  EXPECT_EQ(argmax_of(row), -1);
  row[1999] = -kInfinity;
  EXPECT_EQ(argmax_of(row), -1);
  row[1500] = -3.0f;
  EXPECT_EQ(argmax_of(row), 1500);
  row[1999] = kInfinity;
  EXPECT_EQ(argmax_of(row), -1);
  EXPECT_EQ(argmax_of({kNan, 1.0f}), 1);
  EXPECT_EQ(argmax_of({1.0f, kNan}), 0);
}

TEST(Argmax, RowsAreIndependent) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<std::vector<float>> rows(9, std::vector<float>(1234));
  std::vector<int32_t> expected;
  for (auto& row : rows) {
    for (float& x : row) x = normal(random);
    expected.push_back(argmax_of(row));
  }
  EXPECT_EQ(argmax<float>(rows, DType::kFloat32, 1), expected);
  EXPECT_EQ(argmax<float>(rows, DType::kFloat32, 3), expected);
}

}  // namespace
}  // namespace medusa
