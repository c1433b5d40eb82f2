// Tree attention against float64 over a covering array of shapes, windows, splits and types.
#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "cuda/runtime/kernels.h"
#include "cuda/runtime/workspace.h"
#include "tests/cuda/attention_case.h"
#include "tests/cuda/pairwise.h"
#include "tests/cuda/schedules.h"

namespace medusa::cuda::testing {
namespace {

enum class Splits { kOne, kBalanced, kFixed };

std::string describe(const AttentionShape& s, Splits splits) {
  return "N " + std::to_string(s.num_nodes) + " length " + std::to_string(s.length) + " B " +
         std::to_string(s.num_sequences) + " group " + std::to_string(s.group) + " G " +
         std::to_string(s.num_kv_heads) + " D " + std::to_string(s.head_size) + " window " +
         std::to_string(s.window) + " tree " + std::to_string(static_cast<int>(s.tree)) +
         " padding " + std::to_string(s.num_padding_rows) + " " + dtype_name(s.dtype) + " q " +
         dtype_name(s.q_dtype) + " splits " + std::to_string(static_cast<int>(splits));
}

/// A case on the device.
class DeviceCase {
 public:
  explicit DeviceCase(const AttentionCase& c, bool in_pages = false)
      : sequences_(c.sequences),
        positions_(c.positions),
        nodes_(c.nodes),
        first_rows_(c.first_rows),
        cache_slots_(c.cache_slots),
        lengths_(c.lengths),
        ancestors_(c.ancestors),
        cache_(c, c.shape.dtype, in_pages, c.k, c.v),
        q_(encode(c.shape.q_dtype, c.q)) {
    RowTable& rows = params.rows;
    rows.num_rows = c.num_rows;
    rows.num_sequences = c.shape.num_sequences;
    rows.mask_words = c.mask_words;
    rows.sequences = sequences_.data();
    rows.positions = positions_.data();
    rows.nodes = nodes_.data();
    rows.first_rows = first_rows_.data();
    rows.cache_slots = cache_slots_.data();
    rows.lengths = lengths_.data();
    rows.ancestors = c.ancestors.empty() ? nullptr : ancestors_.data();
    params.cache = cache_.params;
    params.num_query_heads = c.num_query_heads();
    params.sliding_window = c.shape.window;
    params.scale = c.scale();
    params.q_dtype = c.shape.q_dtype;
    params.q = q_.data();
    params.q_row_stride = int64_t{c.num_query_heads()} * c.shape.head_size;
  }

  TreeAttentionParams params;

 private:
  DeviceVector<int32_t> sequences_, positions_, nodes_, first_rows_, cache_slots_, lengths_;
  DeviceVector<uint64_t> ancestors_;
  DeviceCache cache_;
  DeviceVector<unsigned char> q_;
};

std::vector<float> run(const AttentionCase& c, Splits splits, bool in_pages = false) {
  DeviceCase device(c, in_pages);
  TreeAttentionParams& params = device.params;
  const int multiprocessors = splits == Splits::kOne ? 1 : 64;
  TestContext context(workspace_bytes(params, multiprocessors), multiprocessors);
  context.deterministic = splits == Splits::kFixed;
  // A float32 Q comes from the decoder, which wants what the next matrix product reads.
  const bool to_activations = c.shape.q_dtype == DType::kFloat32;
  const DType out_dtype = to_activations ? c.shape.dtype : c.shape.q_dtype;
  DeviceVector<unsigned char> out(c.q.size() * static_cast<size_t>(dtype_bytes(out_dtype)));
  if (to_activations) {
    params.out_activations = {{out_dtype}, c.num_query_heads() * c.shape.head_size, out.data()};
  } else {
    params.out = out.data();
  }
  EXPECT_EQ(cudaSuccess, tree_attention(context, params));
  return decode(out_dtype, out.host());
}

/// Weights and values are rounded to the type once each, the result once more; sums are float32.
void expect_close(const AttentionCase& c, const AttentionReference& reference,
                  const std::vector<float>& out) {
  const double roundoff = unit_roundoff(c.shape.dtype);
  const size_t row_size = static_cast<size_t>(c.num_query_heads()) * c.shape.head_size;
  for (size_t i = 0; i < out.size(); ++i) {
    if (i >= c.first_rows.back() * row_size) {
      ASSERT_TRUE(std::isnan(out[i])) << "padding row written at " << i;
      continue;
    }
    const double bound =
        2 * roundoff * reference.magnitude[i] + 3e-6 * (1 + reference.magnitude[i]);
    ASSERT_LE(std::abs(out[i] - reference.out[i]), bound)
        << "row " << i / row_size << " column " << i % row_size << ": " << out[i] << " instead of "
        << reference.out[i];
  }
}

void check(const AttentionShape& shape, Splits splits) {
  SCOPED_TRACE(describe(shape, splits));
  const AttentionCase c(shape);
  const AttentionReference reference = reference_attention(c);
  under_schedules([&] { expect_close(c, reference, run(c, splits)); });
}

const std::vector<int> kNodeCounts = {1, 5, 16, 63, 64, 65, 128, 256};
const std::vector<int> kLengths = {0, 1, 63, 64, 65, 1000};
const std::vector<int> kGroups = {1, 3, 4, 8};
const std::vector<int> kHeadSizes = {64, 80, 96, 128, 256};
const std::vector<DType> kDTypes = {DType::kBFloat16, DType::kFloat16, DType::kFloat32};
const std::vector<int> kWindows = {0, 3, 70};
const std::vector<int> kLevels = {8, 6, 4, 5, 3, 3, 3, 3, 2, 2};

/// Checks the shape that a row of levels names.
void check_levels(const std::vector<int>& row, unsigned seed) {
  AttentionShape shape;
  shape.num_nodes = kNodeCounts[row[0]];
  shape.length = kLengths[row[1]];
  shape.group = kGroups[row[2]];
  shape.head_size = kHeadSizes[row[3]];
  shape.dtype = kDTypes[row[4]];
  shape.window = kWindows[row[5]];
  shape.tree = static_cast<TreeKind>(row[6]);
  shape.q_dtype = row[8] == 0 ? shape.dtype : DType::kFloat32;
  shape.num_sequences = 1 + row[9];
  shape.num_padding_rows = row[9] * 5;
  shape.seed = seed;
  const int64_t work =
      int64_t{shape.num_nodes} * shape.group * shape.head_size * (shape.length + shape.num_nodes);
  if (is_sanitized() && !soak() && work > 3'000'000) return;
  shape.num_kv_heads = work < 1'000'000 ? 2 : 1;
  check(shape, static_cast<Splits>(row[7]));
}

TEST(TreeAttention, CoversEveryPairOfShapes) {
  unsigned seed = 0;
  for (const std::vector<int>& row : pairwise(kLevels)) {
    check_levels(row, ++seed);
    if (HasFailure()) return;
  }
}

// Every node count, length, group, head size and type; the other choices at random.
TEST(TreeAttention, SoakOfTheFullGrid) {
  if (!soak()) GTEST_SKIP() << "set MEDUSA_SOAK=1";
  std::mt19937 random(1);
  unsigned seed = 0;
  std::vector<int> row(kLevels.size());
  for (row[0] = 0; row[0] < 8; ++row[0]) {
    for (row[1] = 0; row[1] < 6; ++row[1]) {
      for (int i = 0; i < 4 * 5 * 3; ++i) {
        row[2] = i % 4;
        row[3] = i / 4 % 5;
        row[4] = i / 20;
        for (size_t f = 5; f < row.size(); ++f) row[f] = static_cast<int>(random() % kLevels[f]);
        check_levels(row, ++seed);
        if (HasFailure()) return;
      }
    }
  }
}

// A prefix long enough for several splits, some of them without keys once a window hides them.
TEST(TreeAttention, SplitsOfALongPrefix) {
  for (const int window : {0, 300}) {
    AttentionShape shape;
    shape.num_nodes = 6;
    shape.length = is_sanitized() ? 1100 : 2500;
    shape.group = 2;
    shape.window = window;
    for (const Splits splits : {Splits::kBalanced, Splits::kFixed}) check(shape, splits);
  }
}

TEST(TreeAttention, PagesChangeNoBit) {
  for (const DType dtype : {DType::kBFloat16, DType::kFloat16, DType::kFloat32}) {
    for (const int window : {0, 300}) {
      AttentionShape shape;
      shape.dtype = shape.q_dtype = dtype;
      shape.num_sequences = 2;
      shape.num_nodes = 70;
      shape.length = 700;
      shape.group = 2;
      shape.head_size = window == 0 ? 64 : 128;  // tiles of 64 and of 32 keys
      shape.window = window;
      const AttentionCase c(shape);
      for (const Splits splits : {Splits::kOne, Splits::kBalanced, Splits::kFixed}) {
        SCOPED_TRACE(describe(shape, splits));
        EXPECT_EQ(run(c, splits, true), run(c, splits));
      }
    }
  }
}

// Fixed splits: a row's result follows neither the number of nodes nor of multiprocessors.
TEST(TreeAttention, DeterministicIgnoresTheDevice) {
  AttentionShape shape;
  shape.num_nodes = 17;
  shape.length = 1100;
  const AttentionCase c(shape);
  std::vector<std::vector<float>> results;
  for (const int multiprocessors : {1, 132}) {
    DeviceCase device(c);
    TestContext context(workspace_bytes(device.params, multiprocessors), multiprocessors);
    context.deterministic = true;
    DeviceVector<unsigned char> out(c.q.size() * 2);
    device.params.out = out.data();
    ASSERT_EQ(cudaSuccess, tree_attention(context, device.params));
    results.push_back(decode(shape.dtype, out.host()));
  }
  EXPECT_EQ(results[0], results[1]);
}

// Too little workspace means fewer splits, not an error; unsupported sizes and types are errors.
TEST(TreeAttention, Limits) {
  AttentionShape shape;
  shape.num_nodes = 4;
  shape.length = 1000;
  const AttentionCase c(shape);
  const AttentionReference reference = reference_attention(c);
  DeviceCase device(c);
  DeviceVector<unsigned char> out(c.q.size() * 2);
  device.params.out = out.data();
  TestContext context(0, 64);
  ASSERT_EQ(cudaSuccess, tree_attention(context, device.params));
  expect_close(c, reference, decode(shape.dtype, out.host()));

  device.params.cache.head_size = 72;
  EXPECT_EQ(cudaErrorInvalidValue, tree_attention(context, device.params));
  device.params.cache.head_size = 64;
  device.params.q_dtype = DType::kFloat16;
  EXPECT_EQ(cudaErrorInvalidValue, tree_attention(context, device.params));
  device.params.q_dtype = DType::kBFloat16;
  device.params.cache.dtype = DType::kInt8;
  EXPECT_EQ(cudaErrorInvalidValue, tree_attention(context, device.params));
}

}  // namespace
}  // namespace medusa::cuda::testing
