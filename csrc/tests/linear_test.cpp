#include <gtest/gtest.h>

#include "linear_fixture.h"

namespace medusa::cpu {
namespace {

struct Format {
  WeightFormat format;
  SourceType source;
};

// Each format with a source that it keeps exactly (or to its own rounding).
constexpr Format kFormats[] = {
    {kFloat32Weights, SourceType::kFloat32},  {kBFloat16Weights, SourceType::kFloat32},
    {kFloat16Weights, SourceType::kFloat32},  {kFloat16Weights, SourceType::kBFloat16},
    {kBFloat16Weights, SourceType::kFloat16}, {kFloat32Weights, SourceType::kQ4_0},
    {kInt8Weights, SourceType::kQ8_0},        {kInt4Weights, SourceType::kQ4_0},
    {kInt4Weights, SourceType::kQ4_1},
};

struct Size {
  int32_t num_outputs, num_inputs;
};

class LinearTest : public testing::TestWithParam<std::tuple<std::string, Format>> {
 protected:
  const KernelTable& table_ = kernel_table(std::get<0>(GetParam()));
  WeightFormat format_ = std::get<1>(GetParam()).format;
  SourceType source_ = std::get<1>(GetParam()).source;
  CpuContext context_{2};

  bool has_blocks() const { return source_ >= SourceType::kQ8_0; }

  /// K of a size that this source can have.
  int32_t width(int32_t num_inputs) const {
    return has_blocks() ? (num_inputs + 31) / 32 * 32 : num_inputs;
  }

  LinearParams make_params(const Packed& weight, const Rows& x, int32_t num_rows,
                           float* out) const {
    LinearParams params;
    params.num_rows = num_rows;
    params.in = x.activations;
    params.weight = &weight.matrix;
    params.out = out;
    params.out_stride = weight.matrix.num_outputs;
    return params;
  }

  std::vector<float> store(const Packed& weight, const std::vector<float>& x, int32_t num_rows) {
    const Rows rows(table_, context_, format_, x.data(), num_rows, weight.matrix.num_inputs);
    std::vector<float> out(int64_t{num_rows} * weight.matrix.num_outputs);
    table_.linear(context_, make_params(weight, rows, num_rows, out.data()));
    return out;
  }
};

TEST_P(LinearTest, MatchesFloat64) {
  constexpr Size kSizes[] = {{1, 1},    {3, 33},    {17, 31},  {31, 64},
                             {33, 577}, {100, 300}, {64, 1600}};
  for (const Size& size : kSizes) {
    const int32_t k = width(size.num_inputs), n = size.num_outputs;
    const Source source = random_source(source_, n, k, 1);
    const Packed weight(table_, format_, source);
    for (const int32_t r : {1, 2, 5, 13, 33}) {
      const std::vector<float> x = random_floats(int64_t{r} * k, 2);
      const Rows rows(table_, context_, format_, x.data(), r, k);
      // One column more than needed: nothing may be written after a row.
      std::vector<float> out(int64_t{r} * (n + 1), -7.0f);
      LinearParams params = make_params(weight, rows, r, out.data());
      params.out_stride = n + 1;
      table_.linear(context_, params);
      for (int32_t i = 0; i < r; ++i) {
        for (int32_t j = 0; j < n; ++j) {
          const Product expected = reference_product(format_, source, rows, i, j);
          ASSERT_NEAR(out[i * (n + 1) + j], expected.value, 1e-6 * expected.magnitude + 1e-30)
              << "N " << n << " K " << k << " row " << i << " of " << r << " output " << j;
        }
        ASSERT_EQ(out[i * (n + 1) + n], -7.0f);
      }
    }
  }
}

TEST_P(LinearTest, ARowsBitsDoNotDependOnTheOtherRows) {
  constexpr int32_t kRows = 64, kOutputs = 41;
  const int32_t k = width(801);
  const Packed weight(table_, format_, random_source(source_, kOutputs, k, 3));
  const std::vector<float> x = random_floats(int64_t{600} * k, 4);
  std::vector<float> alone;
  for (int32_t r = 0; r < kRows; ++r) {
    const std::vector<float> row(x.begin() + int64_t{r} * k, x.begin() + int64_t{r + 1} * k);
    const std::vector<float> out = store(weight, row, 1);
    alone.insert(alone.end(), out.begin(), out.end());
  }
  for (int32_t r = 2; r <= kRows; ++r) {
    const std::vector<float> out = store(weight, x, r);
    ASSERT_EQ(std::memcmp(out.data(), alone.data(), out.size() * sizeof(float)), 0) << r << " rows";
  }
  const std::vector<float> prefill = store(weight, x, 600);
  EXPECT_EQ(std::memcmp(prefill.data(), alone.data(), alone.size() * sizeof(float)), 0);
  const std::vector<float> last(x.end() - k, x.end());
  EXPECT_EQ(std::memcmp(&prefill[599 * kOutputs], store(weight, last, 1).data(),
                        kOutputs * sizeof(float)),
            0);
}

TEST_P(LinearTest, BitsDoNotDependOnTheNumberOfThreads) {
  constexpr int32_t kRows = 9, kOutputs = 200;
  const int32_t k = width(300);
  const Source source = random_source(source_, kOutputs, k, 5);
  const Packed weight(table_, format_, source), gate_up(table_, format_, source, true);
  const std::vector<float> x = random_floats(int64_t{kRows} * k, 6);
  std::vector<std::vector<char>> results;
  for (const int threads : {1, 2, 3}) {
    context_.set_num_threads(threads);
    const Rows rows(table_, context_, format_, x.data(), kRows, k);
    std::vector<float> out(kRows * kOutputs), half(kRows * kOutputs / 2);
    Rows quantized(table_, kInt8Activations, kRows, kOutputs / 2);
    std::vector<int32_t> ids(kRows);
    LinearParams params = make_params(weight, rows, kRows, out.data());
    table_.linear(context_, params);
    params.epilogue = Epilogue::kArgmax;
    params.argmax = ids.data();
    table_.linear(context_, params);
    params.weight = &gate_up.matrix;
    params.epilogue = Epilogue::kSiluMul;
    params.out = half.data();
    params.out_stride = kOutputs / 2;
    table_.linear(context_, params);
    params.out_activations = quantized.activations;
    table_.linear(context_, params);
    std::vector<char> bytes;
    const auto append = [&bytes](const void* data, size_t size) {
      bytes.insert(bytes.end(), static_cast<const char*>(data),
                   static_cast<const char*>(data) + size);
    };
    append(out.data(), out.size() * sizeof(float));
    append(half.data(), half.size() * sizeof(float));
    append(ids.data(), ids.size() * sizeof(int32_t));
    append(quantized.bytes.data(), quantized.bytes.size());
    results.push_back(bytes);
  }
  EXPECT_TRUE(results[0] == results[1]);
  EXPECT_TRUE(results[0] == results[2]);
}

double silu(double x) { return x / (1 + std::exp(-x)); }

TEST_P(LinearTest, Epilogues) {
  constexpr int32_t kRows = 7;
  for (const int32_t n : {30, 66}) {
    const int32_t k = width(100);
    const Packed weight(table_, format_, random_source(source_, n, k, 7));
    const std::vector<float> x = random_floats(int64_t{kRows} * k, 8), bias = random_floats(n, 9);
    const std::vector<float> before = random_floats(int64_t{kRows} * n, 10);
    const std::vector<float> y = store(weight, x, kRows);
    const Rows rows(table_, context_, format_, x.data(), kRows, k);
    for (const Epilogue epilogue : {Epilogue::kStore, Epilogue::kAdd, Epilogue::kSiluAdd}) {
      std::vector<float> out = before;
      LinearParams params = make_params(weight, rows, kRows, out.data());
      params.bias = bias.data();
      params.epilogue = epilogue;
      table_.linear(context_, params);
      for (size_t i = 0; i < out.size(); ++i) {
        const double sum = double{y[i]} + bias[i % n];
        const double expected = epilogue == Epilogue::kStore ? sum
                                : epilogue == Epilogue::kAdd ? before[i] + sum
                                                             : before[i] + silu(sum);
        ASSERT_NEAR(out[i], expected, 2e-6 * (1 + std::fabs(expected)))
            << "epilogue " << static_cast<int>(epilogue) << " element " << i;
      }
    }
  }
}

TEST_P(LinearTest, SiluMulOfGateAndUpRows) {
  constexpr int32_t kRows = 5;
  for (const int32_t f : {1, 15, 32, 45, 80}) {
    const int32_t k = width(100), n = 2 * f;
    const Source source = random_source(source_, n, k, 11);
    const Packed plain(table_, format_, source), weight(table_, format_, source, true);
    const std::vector<float> x = random_floats(int64_t{kRows} * k, 12, 4.0f);
    const std::vector<float> bias = random_floats(n, 13);
    const std::vector<float> y = store(plain, x, kRows);
    const Rows rows(table_, context_, format_, x.data(), kRows, k);
    for (const bool with_bias : {false, true}) {
      std::vector<float> out(kRows * f, -7.0f);
      LinearParams params = make_params(weight, rows, kRows, out.data());
      params.epilogue = Epilogue::kSiluMul;
      params.out_stride = f;
      params.bias = with_bias ? bias.data() : nullptr;
      table_.linear(context_, params);
      for (int32_t r = 0; r < kRows; ++r) {
        for (int32_t i = 0; i < f; ++i) {
          const double gate = y[r * n + i] + (with_bias ? bias[i] : 0.0f);
          const double up = y[r * n + f + i] + (with_bias ? bias[f + i] : 0.0f);
          const double expected = silu(gate) * up;
          ASSERT_NEAR(out[r * f + i], expected, 2e-6 * (std::fabs(up) + std::fabs(expected)))
              << "F " << f << " row " << r << " output " << i;
        }
      }
      // Written as activations: what quantising the floats gives, bit for bit.
      for (const WeightFormat& reader : {kFloat32Weights, kInt8Weights}) {
        const Rows expected(table_, context_, reader, out.data(), kRows, f);
        Rows written(table_, table_.activation_format(reader), kRows, f);
        params.out_activations = written.activations;
        table_.linear(context_, params);
        for (int32_t r = 0; r < kRows; ++r) {
          for (int32_t i = 0; i < f; ++i) ASSERT_EQ(written.value(r, i), expected.value(r, i));
        }
      }
    }
  }
}

TEST_P(LinearTest, ArgmaxIsThatOfTheStoredOutputs) {
  constexpr int32_t kRows = 6;
  for (const int32_t n : {1, 31, 1000}) {
    const int32_t k = width(64);
    const Packed weight(table_, format_, random_source(source_, n, k, 14));
    const std::vector<float> x = random_floats(int64_t{kRows} * k, 15);
    const std::vector<float> y = store(weight, x, kRows);
    const Rows rows(table_, context_, format_, x.data(), kRows, k);
    std::vector<int32_t> ids(kRows, -1);
    std::vector<float> values(kRows);
    LinearParams params = make_params(weight, rows, kRows, nullptr);
    params.epilogue = Epilogue::kArgmax;
    params.argmax = ids.data();
    params.max_value = values.data();
    table_.linear(context_, params);
    for (int32_t r = 0; r < kRows; ++r) {
      const auto best = std::max_element(&y[r * n], &y[r * n] + n);
      EXPECT_EQ(ids[r], best - &y[r * n]);
      EXPECT_EQ(values[r], *best);
    }
  }
}

TEST_P(LinearTest, ArgmaxIsTheLowestIdOfTheLargestFiniteNumber) {
  constexpr int32_t kOutputs = 300;
  const int32_t k = width(32);
  Source source = random_source(source_, kOutputs, k, 16);
  std::fill(source.bytes.begin(), source.bytes.end(), 0);
  const Packed weight(table_, format_, source);
  const std::vector<float> x = random_floats(k, 17);
  const Rows rows(table_, context_, format_, x.data(), 1, k);
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const auto argmax = [&](const std::vector<float>& bias) {
    int32_t id = -1;
    LinearParams params = make_params(weight, rows, 1, nullptr);
    params.bias = bias.data();
    params.epilogue = Epilogue::kArgmax;
    params.argmax = &id;
    table_.linear(context_, params);
    return id;
  };
  for (const int threads : {1, 2, 3}) {
    context_.set_num_threads(threads);
    for (int round = 0; round < 20; ++round) {
      std::vector<float> bias(kOutputs, -1.0f);
      EXPECT_EQ(argmax(bias), 0);
      bias[290] = bias[101] = bias[77] = bias[250] = 2.0f;
      EXPECT_EQ(argmax(bias), 77);
      bias[5] = kNan;
      EXPECT_EQ(argmax(bias), 77);
    }
  }
  std::vector<float> bias(kOutputs, kNan);
  EXPECT_EQ(argmax(bias), -1);
  bias[40] = bias[41] = -kInfinity;
  EXPECT_EQ(argmax(bias), -1);
  bias[200] = 1.0f;
  EXPECT_EQ(argmax(bias), 200);
  bias[299] = kInfinity;
  EXPECT_EQ(argmax(bias), -1);
}

TEST_P(LinearTest, EmbeddingIsTheKeptRow) {
  constexpr int32_t kOutputs = 70;
  for (const int32_t inputs : {32, 77, 160}) {
    const int32_t k = width(inputs);
    const Source source = random_source(source_, kOutputs, k, 18);
    const Packed table(table_, format_, source);
    const std::vector<int32_t> tokens = {0, 69, 31, 32, 33, 5, 5, 64};
    std::vector<float> out(tokens.size() * k);
    EmbedParams params;
    params.num_rows = static_cast<int32_t>(tokens.size());
    params.tokens = tokens.data();
    params.table = &table.matrix;
    params.out = out.data();
    table_.embed(context_, params);
    for (size_t i = 0; i < out.size(); ++i) {
      ASSERT_EQ(out[i], kept_weight(format_, source, tokens[i / k], i % k)) << "element " << i;
    }
  }
}

std::string case_name(const testing::TestParamInfo<LinearTest::ParamType>& info) {
  const Format& format = std::get<1>(info.param);
  return std::get<0>(info.param) + "_" + weight_format_name(format.format) + "_from_" +
         kSourceTypes[static_cast<int>(format.source)].name;
}

INSTANTIATE_TEST_SUITE_P(Isas, LinearTest,
                         testing::Combine(testing::ValuesIn(isas_under_test()),
                                          testing::ValuesIn(kFormats)),
                         case_name);

class QuantizedLinearTest : public testing::TestWithParam<std::string> {
 protected:
  const KernelTable& table_ = kernel_table(GetParam());
  CpuContext context_{1};
};

// Full-scale weights and activations: 8-bit products that saturate on the way would show.
TEST_P(QuantizedLinearTest, ExtremeValuesDoNotSaturate) {
  constexpr int32_t kInputs = 64, kOutputs = 40;
  Source source = random_source(SourceType::kQ8_0, kOutputs, kInputs, 1);
  auto* blocks = reinterpret_cast<BlockQ8_0*>(source.bytes.data());
  for (int i = 0; i < kOutputs * kInputs / 32; ++i) {
    blocks[i].d = from_float<Float16>(1.0f);
    for (int j = 0; j < 32; ++j) {
      constexpr int8_t kExtremes[] = {-128, 127, -127, 126};
      blocks[i].q[j] = kExtremes[(i % 5 == 0 ? 0 : i + j) % 4];
    }
  }
  Source small = random_source(SourceType::kQ4_0, kOutputs, kInputs, 2);
  auto* nibbles = reinterpret_cast<BlockQ4_0*>(small.bytes.data());
  for (int i = 0; i < kOutputs * kInputs / 32; ++i) {
    nibbles[i].d = from_float<Float16>(1.0f);
    std::fill(nibbles[i].q, nibbles[i].q + 16, static_cast<uint8_t>(i % 3 == 0 ? 0x0f : 0xff));
  }
  for (const int pattern : {0, 1, 2}) {
    std::vector<float> x(kInputs);
    for (int k = 0; k < kInputs; ++k) {
      x[k] = pattern == 0 ? 127.0f : pattern == 1 ? -127.0f : (k % 2 != 0 ? 127.0f : -127.0f);
    }
    const Rows rows(table_, context_, kInt8Weights, x.data(), 1, kInputs);
    for (const auto& [format, weights] :
         {std::pair{kInt8Weights, &source}, std::pair{kInt4Weights, &small}}) {
      const Packed weight(table_, format, *weights);
      std::vector<float> out(kOutputs);
      LinearParams params;
      params.num_rows = 1;
      params.in = rows.activations;
      params.weight = &weight.matrix;
      params.out = out.data();
      params.out_stride = kOutputs;
      table_.linear(context_, params);
      for (int n = 0; n < kOutputs; ++n) {
        EXPECT_EQ(out[n], reference_product(format, *weights, rows, 0, n).value) << n;
      }
    }
  }
}

// Weights that are quantised here: as close as the format can be, at widths with a partial group.
TEST_P(QuantizedLinearTest, QuantisesFloatWeightsToTheNearestStep) {
  constexpr int32_t kOutputs = 37;
  for (const int32_t k : {1, 31, 33, 100}) {
    const Source source = random_source(SourceType::kFloat32, kOutputs, k, 3);
    std::vector<int32_t> tokens(kOutputs);
    for (int32_t n = 0; n < kOutputs; ++n) tokens[n] = n;
    for (const WeightFormat& format : {kInt8Weights, kInt4Weights}) {
      const Packed packed(table_, format, source);
      std::vector<float> kept(kOutputs * k);
      EmbedParams params;
      params.num_rows = kOutputs;
      params.tokens = tokens.data();
      params.table = &packed.matrix;
      params.out = kept.data();
      table_.embed(context_, params);
      for (int32_t n = 0; n < kOutputs; ++n) {
        const float* row = static_cast<const float*>(source.row(n));
        for (int32_t i = 0; i < k; ++i) {
          const int32_t first = i / 32 * 32, last = std::min(first + 32, k);
          const auto [low, high] = std::minmax_element(row + first, row + last);
          const float amax = std::max(-*low, *high);
          const float step = format == kInt8Weights ? amax / 127 : (*high - *low) / 15;
          // Half a step, and the float16 rounding of scale and minimum (2^-11 each).
          ASSERT_NEAR(kept[n * k + i], row[i], 0.5f * step + amax * 0.0015f) << "K " << k;
        }
      }
      const std::vector<float> x = random_floats(k, 4);
      const Rows rows(table_, context_, format, x.data(), 1, k);
      std::vector<float> out(kOutputs);
      LinearParams linear;
      linear.num_rows = 1;
      linear.in = rows.activations;
      linear.weight = &packed.matrix;
      linear.out = out.data();
      linear.out_stride = kOutputs;
      table_.linear(context_, linear);
      for (int32_t n = 0; n < kOutputs; ++n) {
        double expected = 0, magnitude = 0;
        for (int32_t i = 0; i < k; ++i) {
          expected += kept[n * k + i] * rows.value(0, i);
          magnitude += std::fabs(kept[n * k + i] * rows.value(0, i));
        }
        ASSERT_NEAR(out[n], expected, 2e-6 * magnitude + 1e-6) << "K " << k;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, QuantizedLinearTest, testing::ValuesIn(isas_under_test()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace medusa::cpu
