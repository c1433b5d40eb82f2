// The decoder's row operations against plain loops in float64.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <stdexcept>

#include "cuda/linear/pack.h"
#include "cuda/runtime/kernels.h"
#include "cuda/runtime/table.h"
#include "cuda/runtime/workspace.h"
#include "tests/cuda/attention_case.h"
#include "tests/cuda/device.h"
#include "tests/cuda/schedules.h"

namespace medusa::cuda::testing {
namespace {

const std::vector<DType> kDTypes = {DType::kFloat32, DType::kBFloat16, DType::kFloat16};

/// `out` is `expected` rounded to `dtype`, after float32 arithmetic.
void expect_near(double expected, float out, DType dtype, double slack = 1e-5) {
  ASSERT_NEAR(expected, out, (unit_roundoff(dtype) * 1.01 + slack) * std::abs(expected) + 1e-6);
}

/// A matrix of random weights as the kernels read it.
struct TestMatrix {
  TestMatrix(DType dtype, int n, int k, std::mt19937& random)
      : values(rounded(dtype, random_floats(static_cast<size_t>(n) * k, random))),
        device(encode(dtype, values)) {
    packed.format = weights_of(dtype);
    packed.num_outputs = n;
    packed.num_inputs = k;
    packed.data = device.data();
  }
  std::vector<float> values;
  DeviceVector<unsigned char> device;
  PackedMatrix packed;
};

TEST(Embed, GathersRows) {
  std::mt19937 random(1);
  for (const DType dtype : kDTypes) {
    const TestMatrix table(dtype, 9, 131, random);
    const std::vector<int32_t> tokens = {8, 0, -1, 3};
    const DeviceVector<int32_t> device_tokens(tokens);
    under_schedules([&] {
      const DeviceVector<float> out(4 * 131);
      EmbedParams params;
      params.num_rows = 4;
      params.tokens = device_tokens.data();
      params.table = &table.packed;
      params.out = out.data();
      TestContext context;
      ASSERT_EQ(cudaSuccess, embed(context, params));
      for (int i = 0; i < 4 * 131; ++i) {
        const int token = tokens[i / 131];
        EXPECT_EQ(token < 0 ? 0 : table.values[token * 131 + i % 131], out.host()[i]);
      }
    });
  }
}

TEST(RmsNorm, DividesByTheRootMeanSquare) {
  std::mt19937 random(2);
  for (const DType dtype : kDTypes) {
    for (const int width : {1, 63, 576, 2052}) {
      const int rows = 3;
      std::vector<float> x = random_floats(static_cast<size_t>(rows) * width, random, 3);
      std::fill_n(x.begin(), width, 0.0f);  // a row of zeros stays finite
      const std::vector<float> weight = random_floats(width, random);
      const DeviceVector<float> device_x(x), device_weight(weight);
      under_schedules([&] {
        const DeviceVector<unsigned char> out(x.size() * static_cast<size_t>(dtype_bytes(dtype)));
        const DeviceVector<float> out_float(x.size());
        RmsNormParams params;
        params.num_rows = rows;
        params.width = width;
        params.epsilon = 1e-5f;
        params.x = device_x.data();
        params.weight = device_weight.data();
        params.out = {{dtype}, width, out.data()};
        params.out_float = out_float.data();
        TestContext context;
        ASSERT_EQ(cudaSuccess, rms_norm(context, params));
        const std::vector<float> got = decode(dtype, out.host()), exact = out_float.host();
        for (int r = 0; r < rows; ++r) {
          double squares = 0;
          for (int i = 0; i < width; ++i) squares += double{x[r * width + i]} * x[r * width + i];
          const double scale = 1 / std::sqrt(squares / width + 1e-5);
          for (int i = r * width; i < (r + 1) * width; ++i) {
            const double expected = x[i] * scale * weight[i % width];
            expect_near(expected, got[i], dtype);
            expect_near(expected, exact[i], DType::kFloat32);
          }
        }
      });
    }
  }
}

TEST(RmsNorm, AddsToTheResidualStream) {
  std::mt19937 random(4);
  for (const int width : {1, 63, 576}) {
    const int rows = 3;
    const size_t size = static_cast<size_t>(rows) * width;
    const std::vector<float> x = random_floats(size, random), stream = random_floats(size, random);
    const std::vector<float> weight = random_floats(width, random);
    const DeviceVector<float> device_x(x), device_weight(weight), stored(size);
    under_schedules([&] {
      const DeviceVector<float> sum(stream);
      RmsNormParams params;
      params.num_rows = rows;
      params.width = width;
      params.epsilon = 1e-5f;
      params.x = device_x.data();
      params.weight = device_weight.data();
      params.out_float = stored.data();
      TestContext context;
      ASSERT_EQ(cudaSuccess, rms_norm(context, params));
      params.add_to = sum.data();
      ASSERT_EQ(cudaSuccess, rms_norm(context, params));
      const std::vector<float> added = stored.host(), got = sum.host();
      for (size_t i = 0; i < size; ++i) ASSERT_NEAR(stream[i] + added[i], got[i], 1e-6);
    });
  }
}

TEST(Quantize, Converts) {
  std::mt19937 random(3);
  const std::vector<float> x = random_floats(3 * 101, random, 100);
  const DeviceVector<float> device_x(x);
  for (const DType dtype : kDTypes) {
    const DeviceVector<unsigned char> out(x.size() * static_cast<size_t>(dtype_bytes(dtype)));
    TestContext context;
    ASSERT_EQ(cudaSuccess,
              quantize(context, {3, 101, device_x.data(), {{dtype}, 101, out.data()}}));
    EXPECT_EQ(rounded(dtype, x), decode(dtype, out.host()));
  }
}

struct RopeShape {
  DType dtype;
  int head_size, group, kv_heads;
  bool has_norms, in_pages;
};

void check_rope(const RopeShape& s) {
  SCOPED_TRACE(::testing::Message() << dtype_name(s.dtype) << " D " << s.head_size);
  AttentionShape shape;
  shape.num_nodes = 5;
  shape.length = 254;  // rows on either side of a page's end
  shape.num_sequences = 2;
  shape.group = s.group;
  shape.num_kv_heads = s.kv_heads;
  shape.head_size = s.head_size;
  shape.num_padding_rows = 2;
  const AttentionCase c(shape);
  const int d = s.head_size, half = d / 2;
  const int heads = c.num_query_heads() + 2 * s.kv_heads;
  std::mt19937 random(4);
  const std::vector<float> qkv = random_floats(static_cast<size_t>(c.num_rows) * heads * d, random);
  const std::vector<float> cos_sin = random_floats(300 * static_cast<size_t>(d), random);
  const std::vector<float> norm = random_floats(d, random);
  const DeviceVector<int32_t> sequences(c.sequences), positions(c.positions), nodes(c.nodes),
      first_rows(c.first_rows), slots(c.cache_slots), lengths(c.lengths);
  const DeviceVector<float> device_cos_sin(cos_sin), device_norm(norm);
  const std::vector<float> unwritten(c.cache_index(2, 0, 0), std::nanf(""));

  under_schedules([&] {
    const DeviceVector<float> device_qkv(qkv);
    const DeviceCache cache(c, s.dtype, s.in_pages, unwritten, unwritten);
    RopeAppendParams params;
    params.rows.num_rows = c.num_rows;
    params.rows.num_sequences = 2;
    params.rows.sequences = sequences.data();
    params.rows.positions = positions.data();
    params.rows.nodes = nodes.data();
    params.rows.first_rows = first_rows.data();
    params.rows.cache_slots = slots.data();
    params.rows.lengths = lengths.data();
    params.cache = cache.params;
    params.num_query_heads = c.num_query_heads();
    params.qkv = device_qkv.data();
    params.cos_sin = device_cos_sin.data();
    params.q_norm = s.has_norms ? device_norm.data() : nullptr;
    params.k_norm = s.has_norms ? device_norm.data() : nullptr;
    params.epsilon = 1e-6f;
    TestContext context;
    ASSERT_EQ(cudaSuccess, rope_append(context, params));

    const std::vector<float> q_out = device_qkv.host();
    const std::vector<float> k_out = cache.k(), v_out = cache.v();
    int written = 0;
    for (int row = 0; row < c.first_rows.back(); ++row) {
      const int b = c.sequences[row];
      const float* table = &cos_sin[static_cast<size_t>(c.positions[row]) * d];
      for (int head = 0; head < heads; ++head) {
        const float* in = &qkv[(static_cast<size_t>(row) * heads + head) * d];
        double scale = 1;
        if (s.has_norms) {
          double squares = 0;
          for (int i = 0; i < d; ++i) squares += double{in[i]} * in[i];
          scale = 1 / std::sqrt(squares / d + 1e-6);
        }
        const int kv = (head - c.num_query_heads()) % s.kv_heads;
        for (int i = 0; i < d; ++i) {
          const auto normed = [&](int j) { return in[j] * scale * (s.has_norms ? norm[j] : 1); };
          const int pair = i % half;
          const double a = normed(pair), other = normed(pair + half);
          const double rotated = i < half ? a * table[pair] - other * table[half + pair]
                                          : other * table[pair] + a * table[half + pair];
          const double size = std::abs(a) * std::abs(table[i < half ? pair : half + pair]) +
                              std::abs(other) * std::abs(table[i < half ? half + pair : pair]);
          const size_t cell =
              head < c.num_query_heads()
                  ? 0
                  : c.cache_index(c.cache_slots[b], kv, c.lengths[b] + c.nodes[row]) + i;
          if (head < c.num_query_heads()) {
            const float got = q_out[(static_cast<size_t>(row) * heads + head) * d + i];
            ASSERT_NEAR(rotated, got, 2e-6 * size + 1e-6);
          } else if (head < c.num_query_heads() + s.kv_heads) {
            ASSERT_NEAR(rotated, k_out[cell],
                        unit_roundoff(s.dtype) * 1.01 * std::abs(rotated) + 2e-6 * size + 1e-6);
            ++written;
          } else {
            ASSERT_EQ(rounded(s.dtype, {in[i]})[0], v_out[cell]);
          }
        }
      }
    }
    // Nothing else was written, by padding rows least of all.
    EXPECT_EQ(written,
              std::count_if(k_out.begin(), k_out.end(), [](float x) { return !std::isnan(x); }));
  });
}

TEST(RopeAppend, RotatesAndAppends) {
  for (const bool in_pages : {false, true}) {
    check_rope({DType::kFloat32, 64, 3, 1, false, in_pages});
    check_rope({DType::kBFloat16, 80, 1, 2, true, in_pages});
    check_rope({DType::kFloat16, 128, 4, 2, true, in_pages});
    check_rope({DType::kBFloat16, 256, 1, 1, false, in_pages});
  }
}

struct LinearShape {
  Epilogue epilogue;
  bool has_bias, to_activations;
  int extra_stride;
};

void check_linear(DType dtype, const LinearShape& s, int64_t workspace) {
  SCOPED_TRACE(::testing::Message()
               << dtype_name(dtype) << " epilogue " << static_cast<int>(s.epilogue) << " bias "
               << s.has_bias << " workspace " << workspace);
  const int rows = 5, k = 48, n = 70;
  std::mt19937 random(7);
  const TestMatrix weight(dtype, n, k, random);
  const TestMatrix in(dtype, rows, k, random);
  const std::vector<float> bias = random_floats(n, random);
  const int width = s.epilogue == Epilogue::kSiluMul ? n / 2 : n;
  const int stride = width + s.extra_stride;
  const std::vector<float> before = random_floats(static_cast<size_t>(rows) * stride, random);

  const DeviceVector<float> device_bias(bias), out(before), max_value(rows);
  const DeviceVector<unsigned char> activations(static_cast<size_t>(rows * width) *
                                                static_cast<size_t>(dtype_bytes(dtype)));
  const DeviceVector<int32_t> best(rows);
  LinearParams params;
  params.num_rows = rows;
  params.in = {{dtype}, k, in.device.data()};
  params.weight = &weight.packed;
  params.bias = s.has_bias ? device_bias.data() : nullptr;
  params.epilogue = s.epilogue;
  params.out = s.to_activations ? nullptr : out.data();
  params.out_stride = stride;
  if (s.to_activations) params.out_activations = {{dtype}, width, activations.data()};
  params.argmax = best.data();
  params.max_value = max_value.data();
  TestContext context(std::max(workspace, min_workspace_bytes(params)));
  const std::unique_ptr<MatrixProduct> product = make_matrix_product();
  context.matrix_product = product.get();
  ASSERT_EQ(cudaSuccess, linear(context, params));

  const std::vector<float> got = s.to_activations ? decode(dtype, activations.host()) : out.host();
  const auto silu = [](double x) { return x / (1 + std::exp(-x)); };
  for (int r = 0; r < rows; ++r) {
    std::vector<double> x(n);
    for (int o = 0; o < n; ++o) {
      x[o] = s.has_bias ? bias[o] : 0;
      for (int i = 0; i < k; ++i) x[o] += double{in.values[r * k + i]} * weight.values[o * k + i];
    }
    if (s.epilogue == Epilogue::kArgmax) {
      const int top = static_cast<int>(std::max_element(x.begin(), x.end()) - x.begin());
      EXPECT_EQ(top, best.host()[r]);
      EXPECT_NEAR(x[top], max_value.host()[r], 1e-4);
      continue;
    }
    for (int i = 0; i < width; ++i) {
      double expected = x[i];
      const double old = before[r * stride + i];
      if (s.epilogue == Epilogue::kAdd) expected = old + x[i];
      if (s.epilogue == Epilogue::kSiluAdd) expected = old + silu(x[i]);
      if (s.epilogue == Epilogue::kSiluMul) expected = silu(x[i]) * x[i + width];
      const float value = got[r * (s.to_activations ? width : stride) + i];
      const double roundoff = s.to_activations ? unit_roundoff(dtype) : 0;
      ASSERT_NEAR(expected, value, 1.01 * roundoff * std::abs(expected) + 2e-4) << r << ", " << i;
    }
    for (int i = width; i < stride && !s.to_activations; ++i) {
      ASSERT_EQ(before[r * stride + i], got[r * stride + i]) << "beyond the row";
    }
  }
}

TEST(Linear, AppliesEveryEpilogue) {
  for (const DType dtype : kDTypes) {
    for (const bool has_bias : {false, true}) {
      for (const int64_t workspace : {int64_t{0}, int64_t{1} << 20}) {
        check_linear(dtype, {Epilogue::kStore, has_bias, false, 3}, workspace);
        check_linear(dtype, {Epilogue::kAdd, has_bias, false, 3}, workspace);
        check_linear(dtype, {Epilogue::kSiluMul, has_bias, false, 1}, workspace);
        check_linear(dtype, {Epilogue::kSiluMul, has_bias, true, 0}, workspace);
        check_linear(dtype, {Epilogue::kSiluAdd, has_bias, false, 0}, workspace);
        check_linear(dtype, {Epilogue::kArgmax, has_bias, false, 0}, workspace);
      }
    }
  }
}

TEST(Pack, DequantisesBlocks) {
  // Two rows of 64 weights; a scale of 0.5 and a minimum of -3.
  const Float16 scale = from_float<Float16>(0.5f), min = from_float<Float16>(-3.0f);
  for (const SourceType type : {SourceType::kQ8_0, SourceType::kQ4_0, SourceType::kQ4_1}) {
    std::vector<unsigned char> source;
    std::vector<float> expected;
    for (int block = 0; block < 4; ++block) {
      const auto put_half = [&](Float16 x) {
        source.push_back(static_cast<unsigned char>(x.bits));
        source.push_back(static_cast<unsigned char>(x.bits >> 8));
      };
      put_half(scale);
      if (type == SourceType::kQ4_1) put_half(min);
      const int first = block * 3;
      for (int i = 0; i < 32; ++i) {
        const int value = type == SourceType::kQ8_0 ? first - 2 * i : (first + i) % 16;
        expected.push_back(type == SourceType::kQ4_0   ? 0.5f * static_cast<float>(value - 8)
                           : type == SourceType::kQ4_1 ? 0.5f * static_cast<float>(value) - 3
                                                       : 0.5f * static_cast<float>(value));
        if (type == SourceType::kQ8_0) source.push_back(static_cast<unsigned char>(value));
      }
      for (int i = 0; i < 16 && type != SourceType::kQ8_0; ++i) {
        source.push_back(static_cast<unsigned char>((first + i) % 16 | (first + i + 16) % 16 << 4));
      }
    }
    for (const DType dtype : kDTypes) {
      const WeightFormat format = weights_of(dtype);
      const DeviceVector<unsigned char> data(static_cast<size_t>(packed_bytes(format, 4, 64)));
      PackedMatrix matrix;
      matrix.format = format;
      matrix.num_outputs = 4;
      matrix.num_inputs = 64;
      matrix.data = data.data();
      PackParams params;
      params.matrix = &matrix;
      params.source_type = type;
      params.source = source.data();
      params.source_stride = static_cast<int64_t>(source.size() / 2);
      params.first_output = 1;
      params.num_rows = 2;
      pack(params);
      const std::vector<float> values = decode(dtype, data.host());
      EXPECT_EQ(expected, std::vector<float>(values.begin() + 64, values.begin() + 192));
      EXPECT_TRUE(std::isnan(values[63]) && std::isnan(values[192])) << "other rows were written";
    }
  }
  EXPECT_THROW(packed_bytes(kInt4Weights, 4, 64), std::runtime_error);
  EXPECT_EQ((std::vector<std::string>{"float32", "bfloat16", "float16"}),
            supported_formats(kernel_table()));
}

// What the decoder sees of a failing kernel: its name and the reason.
TEST(KernelTable, ThrowsByName) {
  const Backend backend = make_backend();
  const std::unique_ptr<Context> context = backend.make_context();
  CandidatesParams params;
  params.num_sequences = 1;
  params.top_k = 40;
  try {
    backend.kernels->candidates(*context, params);
    FAIL() << "k above 32 was taken";
  } catch (const std::runtime_error& error) {
    EXPECT_NE(std::string::npos, std::string(error.what()).find("cuda: candidates:"));
  }
}

}  // namespace
}  // namespace medusa::cuda::testing
