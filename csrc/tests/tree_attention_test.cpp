// Attention against a float64 reference, and bit for bit against itself: a row's result must not
// depend on what else is computed, or on how.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

#include "core/token_tree.h"
#include "cpu/linear/activations.h"
#include "tests/attention_case.h"

namespace medusa {
namespace {

using Ints = std::vector<int32_t>;

const Ints kTree = {-1, 0, 0, 0, 1, 1, 2, 4, 4, 5, 7, 10};

/// The positions and rows of the keys that node `n` sees, in order.
std::vector<std::pair<int64_t, int64_t>> visible_keys(const AttentionCase& c, int b, int node) {
  std::vector<std::pair<int64_t, int64_t>> keys;
  const int64_t length = c.lengths[b];
  Ints path;
  for (int at = node; at >= 0; at = c.parents[b][at]) path.insert(path.begin(), at);
  const int64_t position = length + static_cast<int64_t>(path.size()) - 1;
  for (int64_t i = 0; i <= position; ++i) {
    if (c.sliding_window > 0 && i <= position - c.sliding_window) continue;
    keys.emplace_back(i, i < length ? i : length + path[i - length]);
  }
  return keys;
}

std::vector<double> reference_row(const AttentionCase& c, int b, int node, int head) {
  const int g = head / (c.num_query_heads / c.num_kv_heads);
  const float* q = c.query(b, node, head);
  std::vector<double> scores;
  double largest = -std::numeric_limits<double>::infinity();
  const auto keys = visible_keys(c, b, node);
  for (const auto& [position, row] : keys) {
    double score = 0;
    for (int d = 0; d < c.head_size; ++d) score += static_cast<double>(q[d]) * c.k_at(b, g, row, d);
    scores.push_back(score * c.scale());
    largest = std::max(largest, scores.back());
  }
  double sum = 0;
  std::vector<double> out(c.head_size);
  for (size_t i = 0; i < keys.size(); ++i) {
    const double weight = std::exp(scores[i] - largest);
    sum += weight;
    for (int d = 0; d < c.head_size; ++d) out[d] += weight * c.v_at(b, g, keys[i].second, d);
  }
  for (double& x : out) x /= sum;
  return out;
}

void expect_matches_reference(AttentionCase& c, int num_threads = 2) {
  const std::vector<float> out = c.run(num_threads);
  int64_t row = 0;
  for (size_t b = 0; b < c.parents.size(); ++b) {
    for (size_t node = 0; node < c.parents[b].size(); ++node, ++row) {
      for (int h = 0; h < c.num_query_heads; ++h) {
        const auto expected = reference_row(c, static_cast<int>(b), static_cast<int>(node), h);
        for (int d = 0; d < c.head_size; ++d) {
          ASSERT_NEAR(out[(row * c.num_query_heads + h) * c.head_size + d], expected[d], 2e-5)
              << "sequence " << b << ", node " << node << ", head " << h << ", d " << d;
        }
      }
    }
  }
}

AttentionCase make_case(Ints lengths, std::vector<Ints> parents, DType dtype = DType::kFloat32,
                        int num_query_heads = 6, int num_kv_heads = 2, int head_size = 64) {
  AttentionCase c;
  c.lengths = std::move(lengths);
  c.parents = std::move(parents);
  c.dtype = dtype;
  c.num_query_heads = num_query_heads;
  c.num_kv_heads = num_kv_heads;
  c.head_size = head_size;
  c.fill(7);
  return c;
}

TEST(TreeAttention, MatchesReferenceForEveryCacheType) {
  for (DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kInt8}) {
    SCOPED_TRACE(dtype_name(dtype));
    AttentionCase c = make_case({300, 61}, {kTree, {-1, 0, 1, 2, 3}}, dtype);
    expect_matches_reference(c);
  }
}

TEST(TreeAttention, MatchesReferenceForEveryHeadSize) {
  for (int head_size : {8, 24, 32, 40, 72, 80, 96, 128, 200, 256}) {
    for (DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kInt8}) {
      SCOPED_TRACE(head_size);
      AttentionCase c = make_case({70}, {kTree}, dtype, 3, 1, head_size);
      expect_matches_reference(c);
    }
  }
}

TEST(TreeAttention, MatchesReferenceForEveryGrouping) {
  for (int group : {1, 2, 3, 4, 5, 6, 7, 8, 13, 150}) {
    SCOPED_TRACE(group);
    AttentionCase c = make_case({33}, {kTree}, DType::kFloat32, 2 * group, 2, 16);
    expect_matches_reference(c);
  }
}

TEST(TreeAttention, MatchesReferenceAtTheEdgesOfBlocksAndSplits) {
  for (int length : {0, 1, 2, 62, 63, 64, 65, 127, 128, 129, 254, 255, 256, 257, 511, 512, 600}) {
    SCOPED_TRACE(length);
    AttentionCase c = make_case({length}, {kTree}, DType::kFloat32, 2, 1, 16);
    expect_matches_reference(c);
  }
}

TEST(TreeAttention, MatchesReferenceWithSlidingWindow) {
  for (int window : {1, 2, 3, 5, 63, 64, 65, 300, 1000}) {
    SCOPED_TRACE(window);
    AttentionCase c = make_case({321, 0}, {kTree, kTree}, DType::kFloat32, 4, 2, 16);
    c.sliding_window = window;
    expect_matches_reference(c);
  }
}

TEST(TreeAttention, MatchesReferenceForLargeTrees) {
  Ints wide = {-1}, deep = {-1};
  for (int node = 1; node < 256; ++node) {
    wide.push_back((node - 1) / 3);
    deep.push_back(node % 2 == 1 ? std::max(node - 2, 0) : node - 1);
  }
  AttentionCase c = make_case({100, 200}, {wide, deep}, DType::kFloat32, 2, 1, 16);
  expect_matches_reference(c);
}

TEST(TreeAttention, ChainsNeedNoMask) {
  for (int rows : {1, 2, 63, 64, 65, 150}) {
    Ints chain;
    for (int node = 0; node < rows; ++node) chain.push_back(node - 1);
    AttentionCase c = make_case({190, 0}, {chain, {-1, 0}}, DType::kBFloat16, 3, 1, 32);
    const std::vector<float> with_mask = c.run(2);
    c.as_chains = true;
    EXPECT_EQ(c.run(2), with_mask) << rows;
    expect_matches_reference(c);
  }
}

TEST(TreeAttention, ThreadsChangeNoBit) {
  for (int length : {100, 700, 2000}) {
    AttentionCase c = make_case({length, 3}, {kTree, {-1}}, DType::kBFloat16);
    const std::vector<float> one = c.run(1);
    for (int num_threads : {2, 3, 8}) EXPECT_EQ(c.run(num_threads), one) << num_threads;
  }
}

TEST(TreeAttention, CuttingTilesForThreadsChangesNoBit) {
  for (int num_kv_heads : {1, 3}) {
    for (int group : {3, 16}) {  // 16: a row has more query vectors than half a tile need have
      for (DType dtype : {DType::kFloat32, DType::kInt8}) {
        AttentionCase c = make_case({130}, {kTree}, dtype, num_kv_heads * group, num_kv_heads);
        const std::vector<float> one = c.run(1);
        for (int num_threads : {2, 4, 7}) EXPECT_EQ(c.run(num_threads), one) << num_threads;
      }
    }
  }
}

TEST(TreeAttention, OtherSequencesAndSlotsChangeNoBit) {
  AttentionCase both = make_case({500, 70}, {kTree, kTree}, DType::kFloat16);
  const std::vector<float> out = both.run(2);
  AttentionCase second = both;
  second.lengths = {70};
  second.parents = {kTree};
  second.slots = {1};
  second.queries.erase(second.queries.begin(),
                       second.queries.begin() + static_cast<int64_t>(kTree.size()) * 6 * 64);
  EXPECT_EQ(second.run(2), std::vector<float>(out.begin() + kTree.size() * 6 * 64, out.end()));
}

void expect_pages_change_no_bit(AttentionCase c) {
  for (int window : {0, 100}) {
    c.sliding_window = window;
    c.in_pages = false;
    const std::vector<float> in_one_run = c.run(2);
    c.in_pages = true;
    for (int num_threads : {1, 2}) ASSERT_EQ(c.run(num_threads), in_one_run);
  }
}

TEST(TreeAttention, PagesChangeNoBit) {
  Ints prompt;
  for (int node = 0; node < 150; ++node) prompt.push_back(node - 1);
  for (DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kInt8}) {
    SCOPED_TRACE(dtype_name(dtype));
    for (int length : {0, 250, 256, 511, 700}) {
      SCOPED_TRACE(length);
      expect_pages_change_no_bit(make_case({length, 3}, {kTree, {-1}}, dtype, 3, 1, 40));
    }
    expect_pages_change_no_bit(make_case({450}, {prompt}, dtype, 3, 1, 64));
  }
}

/// Every node of a tree against plain decoding of its own path: one row, the path's keys in the
/// rows that plain decoding would have them in.
void expect_rows_equal_plain_rows(int length, const Ints& parents, DType dtype, int window,
                                  int head_size) {
  AttentionCase tree = make_case({length}, {parents}, dtype, 6, 2, head_size);
  tree.sliding_window = window;
  const std::vector<float> out = tree.run(2);
  const int64_t row_size = int64_t{6} * head_size;
  for (size_t node = 0; node < parents.size(); ++node) {
    Ints path;
    for (int at = static_cast<int>(node); at >= 0; at = parents[at]) path.insert(path.begin(), at);
    AttentionCase plain = tree;
    plain.move_path_together(path);
    plain.lengths = {length + static_cast<int32_t>(path.size()) - 1};
    plain.parents = {{-1}};
    plain.as_chains = true;
    plain.queries.assign(tree.queries.begin() + node * row_size,
                         tree.queries.begin() + (node + 1) * row_size);
    const std::vector<float> expected(out.begin() + node * row_size,
                                      out.begin() + (node + 1) * row_size);
    ASSERT_EQ(plain.run(1), expected) << "length " << length << ", node " << node;
    ASSERT_EQ(plain.run(2), expected) << "length " << length << ", node " << node;
  }
}

TEST(TreeAttention, TreeRowsEqualPlainRowsBitForBit) {
  Ints chain;
  for (int node = 0; node < 70; ++node) chain.push_back(node - 1);
  for (int length : {0, 1, 59, 60, 61, 62, 63, 64, 65, 250, 255, 256, 257, 515}) {
    expect_rows_equal_plain_rows(length, kTree, DType::kFloat32, 0, 64);
    expect_rows_equal_plain_rows(length, kTree, DType::kBFloat16, 0, 40);
  }
  expect_rows_equal_plain_rows(230, chain, DType::kFloat32, 0, 32);
  expect_rows_equal_plain_rows(300, kTree, DType::kInt8, 0, 64);
  expect_rows_equal_plain_rows(300, kTree, DType::kFloat16, 100, 64);
  expect_rows_equal_plain_rows(62, kTree, DType::kFloat32, 3, 64);
}

TEST(TreeAttention, PromptChunksEqualPlainRowsBitForBit) {
  constexpr int kPrompt = 400;
  Ints chain;
  for (int node = 0; node < kPrompt; ++node) chain.push_back(node - 1);
  AttentionCase whole = make_case({0}, {chain}, DType::kBFloat16, 3, 1, 64);
  whole.as_chains = true;
  const std::vector<float> out = whole.run(2);
  constexpr int64_t kRow = 3 * 64;
  for (int chunk : {1, 7, 64, 100, 399}) {
    for (int first = 0; first < kPrompt; first += chunk) {
      const int rows = std::min(chunk, kPrompt - first);
      AttentionCase part = whole;
      part.lengths = {first};
      part.parents = {Ints(chain.begin(), chain.begin() + rows)};
      part.queries.assign(whole.queries.begin() + first * kRow,
                          whole.queries.begin() + (first + rows) * kRow);
      ASSERT_EQ(part.run(2),
                std::vector<float>(out.begin() + first * kRow, out.begin() + (first + rows) * kRow))
          << "chunk " << chunk << " at " << first;
    }
  }
}

TEST(TreeAttention, KeysOutOfSightAreNotTouched) {
  AttentionCase c = make_case({100}, {kTree}, DType::kFloat32);
  c.sliding_window = 40;
  const std::vector<float> out = c.run(2);
  // Rows before every window and after the tree, poisoned.
  for (int row = 0; row < 61; ++row) c.set_row(row, std::nanf(""));
  for (int row = 112; row < c.num_rows(); ++row) c.set_row(row, std::nanf(""));
  EXPECT_EQ(c.run(2), out);
  // A NaN in one leaf reaches that leaf's row alone.
  c.set_row(100 + 11, std::nanf(""));
  const std::vector<float> poisoned = c.run(2);
  const size_t row = 6 * 64;
  EXPECT_TRUE(std::equal(out.begin(), out.begin() + 11 * row, poisoned.begin()));
  EXPECT_TRUE(std::isnan(poisoned.back()));
}

TEST(TreeAttention, WritesSixteenBitOutputsAndActivations) {
  AttentionCase c = make_case({90}, {kTree}, DType::kFloat32, 6, 2, 40);
  const std::vector<float> out = c.run(2);
  const std::vector<float> bfloat = c.run_as(DType::kBFloat16);
  // Rounded queries give other results; the storage type must be right to its own precision.
  for (size_t i = 0; i < out.size(); ++i) ASSERT_NEAR(bfloat[i], out[i], 0.02) << i;
  const int width = 6 * 40;
  const std::vector<float> quantized = c.run_quantized();
  for (size_t i = 0; i < out.size(); ++i) {
    ASSERT_NEAR(quantized[i], out[i], 0.01) << "row " << i / width << ", " << i % width;
  }
}

}  // namespace
}  // namespace medusa
