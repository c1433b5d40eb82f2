// Rotary embedding, head norms and the append to the cache, against float64.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "tests/kernels_under_test.h"
#include "tests/paged_rows.h"

namespace medusa {
namespace {

struct RopeCase {
  DType dtype = DType::kFloat32;
  int num_query_heads = 4;
  int num_kv_heads = 2;
  int head_size = 64;
  bool has_norms = false;
  // Two sequences: three nodes of a tree at length 5, one at length 0; slots are swapped.
  std::vector<int32_t> sequences = {0, 0, 0, 1}, positions = {5, 6, 6, 0}, nodes = {0, 1, 2, 0},
                       first_rows = {0, 3, 4}, slots = {1, 0}, lengths = {5, 0};
  int cache_rows = 9;
  bool in_pages = false;  // write K and V to shuffled pages
  static constexpr int kPositions = 300;
  static constexpr float kEpsilon = 1e-6f;

  std::vector<float> qkv, cos_sin, q_norm, k_norm, k_scales, v_scales;
  std::vector<char> k, v;

  int num_heads() const { return num_query_heads + 2 * num_kv_heads; }

  void fill() {
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    qkv.resize(4 * num_heads() * head_size);
    for (float& x : qkv) x = normal(random);
    cos_sin.resize(kPositions * head_size);
    for (int position = 0; position < kPositions; ++position) {
      for (int i = 0; i < head_size / 2; ++i) {
        const double angle = position * std::pow(10000.0, -2.0 * i / head_size);
        cos_sin[position * head_size + i] = static_cast<float>(std::cos(angle));
        cos_sin[position * head_size + head_size / 2 + i] = static_cast<float>(std::sin(angle));
      }
    }
    for (int i = 0; i < head_size; ++i) {
      q_norm.push_back(1 + 0.1f * normal(random));
      k_norm.push_back(1 + 0.1f * normal(random));
    }
    const int64_t rows = int64_t{2} * num_kv_heads * cache_rows;
    k.assign(rows * head_size * dtype_bytes(dtype), 0x55);
    v = k;
    k_scales.assign(rows, -1);
    v_scales = k_scales;
  }

  void run(int num_threads) {
    RopeAppendParams p;
    p.rows.num_rows = 4;
    p.rows.num_sequences = 2;
    p.rows.sequences = sequences.data();
    p.rows.positions = positions.data();
    p.rows.nodes = nodes.data();
    p.rows.first_rows = first_rows.data();
    p.rows.cache_slots = slots.data();
    p.rows.lengths = lengths.data();
    const PagedRows paged(2, cache_rows);
    const int64_t row_bytes = head_size * dtype_bytes(dtype);
    if (in_pages) {
      for (std::vector<char>* plane : {&k, &v}) {
        *plane = paged.cut(*plane, num_kv_heads, row_bytes, '\x55');
      }
      for (std::vector<float>* scales : {&k_scales, &v_scales}) {
        *scales = paged.cut(*scales, num_kv_heads, 1, -1.0f);
      }
      p.cache.page_table = paged.table(paged.pages.data());
    }
    p.cache.dtype = dtype;
    p.cache.num_kv_heads = num_kv_heads;
    p.cache.head_size = head_size;
    p.cache.num_rows = cache_rows;
    p.cache.row_stride = head_size;
    p.cache.scale_head_stride = in_pages ? kPageRows : cache_rows;
    p.cache.head_stride = p.cache.scale_head_stride * head_size;
    p.cache.scale_slot_stride = p.cache.scale_head_stride * num_kv_heads;
    p.cache.slot_stride = p.cache.head_stride * num_kv_heads;
    p.cache.k = k.data();
    p.cache.v = v.data();
    p.cache.k_scales = dtype == DType::kInt8 ? k_scales.data() : nullptr;
    p.cache.v_scales = dtype == DType::kInt8 ? v_scales.data() : nullptr;
    p.num_query_heads = num_query_heads;
    p.qkv = qkv.data();
    p.cos_sin = cos_sin.data();
    p.q_norm = has_norms ? q_norm.data() : nullptr;
    p.k_norm = has_norms ? k_norm.data() : nullptr;
    p.epsilon = kEpsilon;
    cpu::CpuContext context(num_threads);
    kernels_under_test().rope_append(context, p);
    if (!in_pages) return;
    for (std::vector<char>* plane : {&k, &v}) {
      *plane = paged.joined(*plane, num_kv_heads, row_bytes);
    }
    for (std::vector<float>* scales : {&k_scales, &v_scales}) {
      *scales = paged.joined(*scales, num_kv_heads, 1);
    }
  }

  /// The rotated (and normalised) head of a row, in float64.
  std::vector<double> rotated(int row, int head) const {
    const float* x = qkv.data() + (row * num_heads() + head) * head_size;
    std::vector<double> y(x, x + head_size);
    if (has_norms) {
      double squares = 0;
      for (double value : y) squares += value * value;
      const auto& weight = head < num_query_heads ? q_norm : k_norm;
      for (int i = 0; i < head_size; ++i) {
        y[i] *= weight[i] / std::sqrt(squares / head_size + kEpsilon);
      }
    }
    const int half = head_size / 2;
    const float* turn = cos_sin.data() + positions[row] * head_size;
    std::vector<double> out(head_size);
    for (int i = 0; i < half; ++i) {
      out[i] = y[i] * turn[i] - y[i + half] * turn[half + i];
      out[i + half] = y[i + half] * turn[i] + y[i] * turn[half + i];
    }
    return out;
  }

  int64_t line(int row, int g) const {
    const int sequence = sequences[row];
    return (int64_t{slots[sequence]} * num_kv_heads + g) * cache_rows + lengths[sequence] +
           nodes[row];
  }

  double stored(const std::vector<char>& cache, const std::vector<float>& scales, int row, int g,
                int d) const {
    const int64_t i = line(row, g) * head_size + d;
    if (dtype == DType::kFloat32) return reinterpret_cast<const float*>(cache.data())[i];
    if (dtype == DType::kBFloat16) {
      return to_float(reinterpret_cast<const BFloat16*>(cache.data())[i]);
    }
    if (dtype == DType::kFloat16) {
      return to_float(reinterpret_cast<const Float16*>(cache.data())[i]);
    }
    return static_cast<int8_t>(cache[i]) * static_cast<double>(scales[line(row, g)]);
  }

  /// Half a unit of the storage type at the size of these values, with room for float32.
  double tolerance() const {
    if (dtype == DType::kFloat32) return 2e-6;
    if (dtype == DType::kBFloat16) return 8.0 / 256;
    if (dtype == DType::kFloat16) return 8.0 / 2048;
    return 6.0 / 127 / 2;
  }
};

void expect_matches_reference(RopeCase c) {
  c.fill();
  RopeCase before = c;
  c.run(2);
  RopeCase one_thread = before;
  one_thread.run(1);
  EXPECT_EQ(c.qkv, one_thread.qkv);
  EXPECT_EQ(c.k, one_thread.k);
  EXPECT_EQ(c.v, one_thread.v);
  for (int row = 0; row < 4; ++row) {
    for (int h = 0; h < c.num_query_heads; ++h) {
      const auto expected = before.rotated(row, h);
      for (int d = 0; d < c.head_size; ++d) {
        ASSERT_NEAR(c.qkv[(row * c.num_heads() + h) * c.head_size + d], expected[d], 2e-6);
      }
    }
    for (int g = 0; g < c.num_kv_heads; ++g) {
      const auto k = before.rotated(row, c.num_query_heads + g);
      const float* v = before.qkv.data() +
                       (row * c.num_heads() + c.num_query_heads + c.num_kv_heads + g) * c.head_size;
      for (int d = 0; d < c.head_size; ++d) {
        ASSERT_NEAR(c.stored(c.k, c.k_scales, row, g, d), k[d], c.tolerance()) << row << " " << d;
        ASSERT_NEAR(c.stored(c.v, c.v_scales, row, g, d), v[d], c.tolerance()) << row << " " << d;
      }
    }
  }
}

TEST(RopeAppend, MatchesReference) {
  for (DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kInt8}) {
    for (int head_size : {8, 16, 24, 40, 64, 80, 128, 256}) {
      for (bool has_norms : {false, true}) {
        SCOPED_TRACE(std::string(dtype_name(dtype)) + " " + std::to_string(head_size));
        RopeCase c;
        c.dtype = dtype;
        c.head_size = head_size;
        c.has_norms = has_norms;
        expect_matches_reference(c);
      }
    }
  }
}

TEST(RopeAppend, WritesItsOwnRowsOnly) {
  RopeCase c;
  c.fill();
  const std::vector<char> before = c.k;
  c.run(2);
  const int64_t row_bytes = c.head_size * 4;
  for (int64_t line = 0; line < int64_t{2} * c.num_kv_heads * c.cache_rows; ++line) {
    bool is_written = false;
    for (int row = 0; row < 4; ++row) {
      for (int g = 0; g < c.num_kv_heads; ++g) is_written |= line == c.line(row, g);
    }
    const bool is_equal =
        std::equal(before.begin() + line * row_bytes, before.begin() + (line + 1) * row_bytes,
                   c.k.begin() + line * row_bytes);
    EXPECT_EQ(is_equal, !is_written) << line;
  }
}

TEST(RopeAppend, WritesTheSameRowsOfPages) {
  for (DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kInt8}) {
    RopeCase run;
    run.dtype = dtype;
    run.cache_rows = 600;
    run.lengths = {255, 0};
    run.positions = {255, 256, 256, 0};
    run.fill();
    RopeCase paged = run;
    paged.in_pages = true;
    run.run(2);
    paged.run(2);
    EXPECT_EQ(paged.qkv, run.qkv) << dtype_name(dtype);
    EXPECT_EQ(paged.k, run.k) << dtype_name(dtype);
    EXPECT_EQ(paged.v, run.v) << dtype_name(dtype);
    EXPECT_EQ(paged.k_scales, run.k_scales) << dtype_name(dtype);
    EXPECT_EQ(paged.v_scales, run.v_scales) << dtype_name(dtype);
  }
}

TEST(RopeAppend, QuantisesZeroHeadsToZero) {
  RopeCase c;
  c.dtype = DType::kInt8;
  c.fill();
  std::fill(c.qkv.begin(), c.qkv.end(), 0.0f);
  c.run(1);
  EXPECT_EQ(c.k_scales[c.line(0, 0)], 0.0f);
  for (int d = 0; d < c.head_size; ++d) EXPECT_EQ(c.stored(c.k, c.k_scales, 0, 0, d), 0.0);
}

}  // namespace
}  // namespace medusa
