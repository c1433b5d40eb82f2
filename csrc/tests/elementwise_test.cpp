#include <gtest/gtest.h>

#include <limits>
#include <stdexcept>

#include "linear_fixture.h"

namespace medusa::cpu {
namespace {

class ElementwiseTest : public testing::TestWithParam<std::string> {
 protected:
  const KernelTable& table_ = kernel_table(GetParam());
  CpuContext context_{2};
};

constexpr int32_t kWidths[] = {1, 15, 16, 31, 32, 33, 63, 64, 100, 576};

TEST_P(ElementwiseTest, RmsNormMatchesFloat64) {
  for (const int32_t width : kWidths) {
    constexpr int32_t kRows = 19;
    const std::vector<float> x = random_floats(kRows * width, 1, 3.0f);
    const std::vector<float> weight = random_floats(width, 2);
    std::vector<float> copy(kRows * width + 1, -7.0f);
    Rows rows(table_, kFloatActivations, kRows, width);
    RmsNormParams params;
    params.num_rows = kRows;
    params.width = width;
    params.epsilon = 1e-5f;
    params.x = x.data();
    params.weight = weight.data();
    params.out = rows.activations;
    params.out_float = copy.data();
    table_.rms_norm(context_, params);
    for (int32_t r = 0; r < kRows; ++r) {
      double sum = 0;
      for (int32_t i = 0; i < width; ++i) sum += double{x[r * width + i]} * x[r * width + i];
      const double factor = 1 / std::sqrt(sum / width + params.epsilon);
      for (int32_t i = 0; i < width; ++i) {
        const double expected = x[r * width + i] * factor * weight[i];
        ASSERT_NEAR(copy[r * width + i], expected, 1e-6 * std::fabs(expected));
        ASSERT_EQ(rows.value(r, i), copy[r * width + i]);
      }
    }
    EXPECT_EQ(copy.back(), -7.0f);
  }
}

TEST_P(ElementwiseTest, RmsNormAddsWhatItWouldStore) {
  for (const int32_t width : kWidths) {
    constexpr int32_t kRows = 11;
    const std::vector<float> x = random_floats(kRows * width, 3);
    const std::vector<float> weight = random_floats(width, 4);
    const std::vector<float> stream = random_floats(kRows * width + 1, 5);
    std::vector<float> stored(kRows * width), sum = stream;
    RmsNormParams params;
    params.num_rows = kRows;
    params.width = width;
    params.epsilon = 1e-6f;
    params.x = x.data();
    params.weight = weight.data();
    params.out_float = stored.data();
    table_.rms_norm(context_, params);
    params.out_float = nullptr;
    params.add_to = sum.data();
    table_.rms_norm(context_, params);
    for (int32_t i = 0; i < kRows * width; ++i) ASSERT_EQ(sum[i], stream[i] + stored[i]);
    EXPECT_EQ(sum.back(), stream.back());
  }
}

TEST_P(ElementwiseTest, RmsNormQuantisesWhatItWouldStore) {
  for (const int32_t width : kWidths) {
    for (const bool with_copy : {false, true}) {
      constexpr int32_t kRows = 11;
      const std::vector<float> x = random_floats(kRows * width, 3);
      const std::vector<float> weight = random_floats(width, 4);
      std::vector<float> stored(kRows * width);
      RmsNormParams params;
      params.num_rows = kRows;
      params.width = width;
      params.epsilon = 1e-6f;
      params.x = x.data();
      params.weight = weight.data();
      params.out_float = stored.data();
      table_.rms_norm(context_, params);
      const Rows expected(table_, context_, kInt8Weights, stored.data(), kRows, width);
      Rows rows(table_, kInt8Activations, kRows, width);
      params.out = rows.activations;
      if (!with_copy) params.out_float = nullptr;
      table_.rms_norm(context_, params);
      for (int32_t r = 0; r < kRows; ++r) {
        for (int32_t i = 0; i < width; ++i) ASSERT_EQ(rows.value(r, i), expected.value(r, i));
      }
    }
  }
}

/// One group by the definition, in scalar float32.
void expect_group(const float* x, int count, const Int8Row& row, int group) {
  float amax = 0;
  for (int i = 0; i < count; ++i) amax = std::max(amax, std::fabs(x[i]));
  const bool is_zero = amax < 1e-30f;
  const float inverse = is_zero ? 0.0f : 127.0f / amax;
  ASSERT_EQ(row.scales[group], is_zero ? 0.0f : amax / 127.0f);
  int32_t sum = 0;
  for (int i = 0; i < kGroupSize; ++i) {
    const int q = i < count ? static_cast<int>(std::nearbyint(x[i] * inverse)) : 0;
    ASSERT_EQ(row.values[group * kGroupSize + i], q) << "element " << i << " of group " << group;
    sum += q;
  }
  ASSERT_EQ(row.starts[group], kSumStart - 128 * sum);
  ASSERT_EQ(row.scaled_sums[group], row.scales[group] * static_cast<float>(sum));
}

TEST_P(ElementwiseTest, QuantisedActivationsHaveTheSameBitsEverywhere) {
  for (const int32_t width : kWidths) {
    constexpr int32_t kRows = 12;
    std::vector<float> x = random_floats(kRows * width, 5);
    for (int32_t i = 0; i < width; ++i) {
      x[width + i] = 0.0f;                                            // a row of zeros
      x[2 * width + i] *= 1e-38f;                                     // too small to scale
      x[3 * width + i] *= 1e30f;                                      // large
      x[4 * width + i] = (static_cast<float>(i % 255) - 127.0f) / 2;  // halves: ties
    }
    x[4 * width] = 127.0f;
    const Rows rows(table_, context_, kInt4Weights, x.data(), kRows, width);
    for (int32_t r = 0; r < kRows; ++r) {
      for (int32_t first = 0; first < width; first += kGroupSize) {
        expect_group(&x[r * width + first], std::min(kGroupSize, width - first),
                     int8_row(rows.activations, r), first / kGroupSize);
      }
    }
  }
}

TEST_P(ElementwiseTest, QuantiseCopiesForFloatWeights) {
  const std::vector<float> x = random_floats(3 * 50, 6);
  const Rows rows(table_, context_, kBFloat16Weights, x.data(), 3, 50);
  ASSERT_TRUE(rows.activations.format == kFloatActivations);
  for (int r = 0; r < 3; ++r) {
    for (int i = 0; i < 50; ++i) EXPECT_EQ(rows.value(r, i), x[r * 50 + i]);
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, ElementwiseTest, testing::ValuesIn(isas_under_test()),
                         [](const auto& info) { return info.param; });

TEST(Isa, GenericIsAlwaysThereAndLast) { EXPECT_EQ(available_isas().back(), "generic"); }

TEST(Isa, TheDefaultIsTheOneNamedOrElseTheBest) {
  const char* named = std::getenv("MEDUSA_ISA");
  EXPECT_EQ(kernel_table().name, named && *named ? named : available_isas().front());
}

TEST(Isa, AnUnknownNameListsTheKnownOnes) {
  try {
    kernel_table("avx1024");
    FAIL() << "no exception";
  } catch (const std::invalid_argument& error) {
    EXPECT_NE(std::string(error.what()).find("generic"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("avx1024"), std::string::npos) << error.what();
  }
}

TEST(Isa, EveryTableIsComplete) {
  for (const std::string& name : available_isas()) {
    const KernelTable& table = kernel_table(name);
    EXPECT_EQ(table.name, name);
    for (const bool is_set :
         {table.supports != nullptr, table.packed_bytes != nullptr, table.pack != nullptr,
          table.embed != nullptr, table.rms_norm != nullptr, table.quantize != nullptr,
          table.linear != nullptr, table.rope_append != nullptr, table.tree_attention != nullptr,
          table.argmax != nullptr, table.sample != nullptr, table.candidates != nullptr,
          table.accept != nullptr, table.accept_typical != nullptr, table.compact != nullptr}) {
      EXPECT_TRUE(is_set) << name;
    }
  }
}

}  // namespace
}  // namespace medusa::cpu
