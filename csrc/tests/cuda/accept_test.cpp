// Acceptance and the kernels around it against plain loops.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "cuda/runtime/kernels.h"
#include "cuda/runtime/workspace.h"
#include "tests/cuda/attention_case.h"
#include "tests/cuda/device.h"
#include "tests/cuda/schedules.h"

namespace medusa::cuda::testing {
namespace {

/// Trees of B sequences, padded to N nodes each or packed; few token ids, so that paths are long.
struct Trees {
  Trees(std::vector<int> counts, int n, bool is_packed, unsigned seed)
      : num_nodes(counts.begin(), counts.end()), max_nodes(n), packed(is_packed), random(seed) {
    int row = 0;
    for (size_t b = 0; b < counts.size(); ++b) {
      first_rows.push_back(packed ? row : static_cast<int>(b) * n);
      const int stored = packed ? counts[b] : n;
      const TreeKind kind = b % 2 == 0 ? TreeKind::kDeep : TreeKind::kRandom;
      std::vector<int32_t> tree = random_parents(kind, counts[b], random);
      tree.resize(static_cast<size_t>(stored), -1);  // padding: roots
      parents.insert(parents.end(), tree.begin(), tree.end());
      row += stored;
    }
    for (int i = 0; i < row; ++i) tokens.push_back(static_cast<int>(random() % 3));
  }
  int num_sequences() const { return static_cast<int>(num_nodes.size()); }
  int num_rows() const { return static_cast<int>(parents.size()); }

  std::vector<int32_t> num_nodes, first_rows, parents, tokens;
  int max_nodes;
  bool packed;
  std::mt19937 random;
};

/// The trees on the device with room for what acceptance writes.
struct DeviceTrees {
  DeviceTrees(const Trees& trees, const std::vector<int32_t>& target_tokens, int max_path)
      : tokens(trees.tokens),
        targets(target_tokens),
        parents(trees.parents),
        num_nodes(trees.num_nodes),
        first_rows(trees.first_rows),
        path(static_cast<size_t>(trees.num_sequences()) * max_path),
        count(static_cast<size_t>(trees.num_sequences())),
        next_root(static_cast<size_t>(trees.num_sequences())) {
    params.num_sequences = trees.num_sequences();
    params.max_nodes = trees.max_nodes;
    params.max_path = max_path;
    params.first_rows = trees.packed ? first_rows.data() : nullptr;
    params.tokens = tokens.data();
    params.targets = targets.data();
    params.parents = parents.data();
    params.num_nodes = num_nodes.data();
    params.path = path.data();
    params.count = count.data();
    params.next_root = next_root.data();
  }
  DeviceVector<int32_t> tokens, targets, parents, num_nodes, first_rows, path, count, next_root;
  AcceptParams params;
};

struct Accepted {
  std::vector<int32_t> path;
  int32_t next_root;
};

Accepted walk(const Trees& trees, int b, const std::vector<int32_t>& targets, int max_path) {
  if (trees.num_nodes[b] == 0) return {{}, -1};
  const int first = trees.first_rows[b];
  std::vector<int32_t> path = {0};
  while (static_cast<int>(path.size()) < max_path) {
    int child = -1;
    for (int j = trees.num_nodes[b] - 1; j > 0; --j) {
      if (trees.parents[first + j] == path.back() &&
          trees.tokens[first + j] == targets[first + path.back()]) {
        child = j;
      }
    }
    if (child < 0) break;
    path.push_back(child);
  }
  return {path, targets[first + path.back()]};
}

void expect_accepted(const Accepted& expected, const DeviceTrees& device, int b, int max_path) {
  const std::vector<int32_t> path = device.path.host();
  std::vector<int32_t> padded = expected.path;
  padded.resize(static_cast<size_t>(max_path), -1);
  EXPECT_EQ(padded,
            std::vector<int32_t>(path.begin() + b * max_path, path.begin() + (b + 1) * max_path));
  EXPECT_EQ(static_cast<int>(expected.path.size()), device.count.host()[b]);
  EXPECT_EQ(expected.next_root, device.next_root.host()[b]);
}

TEST(Accept, WalksDownTheTargets) {
  for (unsigned seed = 1; seed <= 12; ++seed) {
    const bool packed = seed % 2 == 0;
    const Trees trees({65, 1, 0, 256, 16}, 256, packed, seed);
    std::vector<int32_t> targets;
    for (int i = 0; i < trees.num_rows(); ++i) targets.push_back(i % 7 == 0 ? 99 : i % 3);
    const int max_path = seed % 3 == 0 ? 3 : 128;
    TestContext context;
    under_schedules([&] {
      const DeviceTrees device(trees, targets, max_path);
      ASSERT_EQ(cudaSuccess, accept(context, device.params));
      for (int b = 0; b < trees.num_sequences(); ++b) {
        SCOPED_TRACE(::testing::Message() << "seed " << seed << " sequence " << b);
        expect_accepted(walk(trees, b, targets, max_path), device, b, max_path);
      }
    });
  }
}

struct TypicalRule {
  float temperature, epsilon, delta;
};

/// The longest typical path in float64; -1 as next_root stands for any draw.
Accepted typical_path(const Trees& trees, int b, const std::vector<float>& logits, int width,
                      const TypicalRule& rule, int max_path, double* margin) {
  if (trees.num_nodes[b] == 0) return {{}, -1};
  const int first = trees.first_rows[b];
  std::vector<int> depth(trees.num_nodes[b], 0);
  std::vector<double> total(trees.num_nodes[b], 0);
  depth[0] = 1;
  int best = 0;
  for (int j = 1; j < trees.num_nodes[b]; ++j) {
    const int parent = trees.parents[first + j];
    if (depth[parent] == 0 || depth[parent] == max_path) continue;
    const float* row = &logits[static_cast<size_t>(first + parent) * width];
    double sum = 0, weighted = 0;
    for (int i = 0; i < width; ++i) {
      const double z = double{row[i]} / rule.temperature;
      sum += std::exp(z);
      weighted += z * std::exp(z);
    }
    const double entropy = std::log(sum) - weighted / sum;
    const double log_p = double{row[trees.tokens[first + j]]} / rule.temperature - std::log(sum);
    const double bound = std::min<double>(rule.epsilon, rule.delta * std::exp(-entropy));
    *margin = std::min(*margin, std::abs(std::exp(log_p) - bound));
    if (std::exp(log_p) <= bound) continue;
    depth[j] = depth[parent] + 1;
    total[j] = total[parent] + log_p;
    const bool longer = depth[j] > depth[best];
    if (longer || (depth[j] == depth[best] && total[j] > total[best])) best = j;
  }
  std::vector<int32_t> path;
  for (int j = best; j >= 0; j = trees.parents[first + j]) path.push_back(j);
  std::reverse(path.begin(), path.end());
  return {path, -1};
}

void check_typical(DType dtype, const TypicalRule& rule, bool packed, unsigned seed) {
  SCOPED_TRACE(::testing::Message()
               << dtype_name(dtype) << " T " << rule.temperature << " seed " << seed);
  const Trees trees({40, 0, 7, 1}, 40, packed, seed);
  const int width = 300, max_path = seed % 2 == 0 ? 4 : 40;
  std::mt19937 random(seed);
  std::vector<float> logits =
      rounded(dtype, random_floats(static_cast<size_t>(trees.num_rows()) * width, random, 1.0f));
  for (int row = 0; row < trees.num_rows(); ++row) {
    for (int id = 0; id < 3; ++id) logits[static_cast<size_t>(row) * width + id] += 5;
  }
  logits = rounded(dtype, logits);
  const DeviceVector<unsigned char> device_logits(encode(dtype, logits));
  const DeviceVector<uint64_t> seeds({11, 12, 13, 14});
  const DeviceVector<int32_t> lengths({5, 6, 7, 8});
  TestContext context(1 << 20);
  under_schedules([&] {
    DeviceTrees device(trees, trees.tokens, max_path);
    device.params.targets = nullptr;
    AcceptTypicalParams params;
    params.rules.shared.typical = true;
    params.accept = device.params;
    params.width = width;
    params.dtype = dtype;
    params.logits = device_logits.data();
    params.seeds = seeds.data();
    params.lengths = lengths.data();
    params.rules.shared.temperature = rule.temperature;
    params.rules.shared.epsilon = rule.epsilon;
    params.rules.shared.delta = rule.delta;
    params.rules.shared.top_k = 50;
    ASSERT_LE(workspace_bytes(params), context.workspace_bytes);
    ASSERT_EQ(cudaSuccess, accept_typical(context, params));
    for (int b = 0; b < trees.num_sequences(); ++b) {
      double margin = 1;
      Accepted expected = typical_path(trees, b, logits, width, rule, max_path, &margin);
      ASSERT_GT(margin, 1e-7) << "the case hangs on a rounding: choose another seed";
      if (!expected.path.empty()) {
        // The draw is `sample` of the last node's row at the position after it.
        const int row = trees.first_rows[b] + expected.path.back();
        const auto count = static_cast<int32_t>(expected.path.size());
        const std::vector<int32_t> next_position = {lengths.host()[b] + count};
        const DeviceVector<int32_t> position(next_position), drawn(1);
        SampleParams sample_params;
        sample_params.num_rows = 1;
        sample_params.width = width;
        sample_params.dtype = dtype;
        sample_params.logits = device_logits.data() + row * width * dtype_bytes(dtype);
        sample_params.row_stride = width;
        sample_params.seeds = seeds.data() + b;
        sample_params.positions = position.data();
        sample_params.rules.shared.temperature = rule.temperature;
        sample_params.rules.shared.top_k = 50;
        sample_params.out = drawn.data();
        ASSERT_EQ(cudaSuccess, sample(context, sample_params));
        expected.next_root = drawn.host()[0];
      }
      SCOPED_TRACE(::testing::Message() << "sequence " << b);
      expect_accepted(expected, device, b, max_path);
    }
  });
}

TEST(AcceptTypical, TakesTheLongestTypicalPath) {
  unsigned seed = 0;
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
    check_typical(dtype, {1.0f, 0.09f, 0.3f}, false, ++seed);
    check_typical(dtype, {0.6f, 0.3f, 0.5f}, true, ++seed);
    check_typical(dtype, {1.5f, 0.5f, 0.9f}, true, ++seed);
  }
}

// At temperature 0 the arg-max alone is typical, and is the root.
TEST(AcceptTypical, IsGreedyAtTemperatureZero) {
  const Trees trees({40, 9}, 40, true, 3);
  const int width = 50, max_path = 40;
  std::mt19937 random(4);
  std::vector<float> logits = random_floats(static_cast<size_t>(trees.num_rows()) * width, random);
  std::vector<int32_t> targets;
  for (int row = 0; row < trees.num_rows(); ++row) {
    targets.push_back(row % 3);
    logits[static_cast<size_t>(row) * width + row % 3] = 9;
  }
  const DeviceVector<float> device_logits(logits);
  const DeviceVector<uint64_t> seeds({11, 12});
  const DeviceVector<int32_t> lengths({5, 6});
  TestContext context(1 << 20);
  DeviceTrees device(trees, targets, max_path);
  AcceptTypicalParams params;
  params.rules.shared.typical = true;
  params.accept = device.params;
  params.width = width;
  params.logits = device_logits.data();
  params.seeds = seeds.data();
  params.lengths = lengths.data();
  params.rules.shared.temperature = 0;
  ASSERT_EQ(cudaSuccess, accept_typical(context, params));
  for (int b = 0; b < 2; ++b) {
    expect_accepted(walk(trees, b, targets, max_path), device, b, max_path);
  }
}

TEST(TreeRows, AreMadeOfParents) {
  const int num_sequences = 3, num_nodes = 70, words = 2;
  std::mt19937 random(5);
  std::vector<int32_t> parents;
  for (const TreeKind kind : {TreeKind::kRandom, TreeKind::kDeep, TreeKind::kChain}) {
    std::vector<int32_t> tree =
        random_parents(kind, kind == TreeKind::kChain ? num_nodes : 60, random);
    tree.resize(num_nodes, -1);
    parents.insert(parents.end(), tree.begin(), tree.end());
  }
  const DeviceVector<int32_t> device_parents(parents), lengths({9, 0, 4});
  under_schedules([&] {
    const size_t rows = static_cast<size_t>(num_sequences) * num_nodes;
    const DeviceVector<int32_t> sequences(rows), positions(rows), nodes(rows), first_rows(4),
        slots(3);
    const DeviceVector<uint64_t> ancestors(rows * words);
    TreeRowsParams params;
    params.num_sequences = num_sequences;
    params.num_nodes = num_nodes;
    params.mask_words = words;
    params.parents = device_parents.data();
    params.lengths = lengths.data();
    params.sequences = sequences.data();
    params.positions = positions.data();
    params.nodes = nodes.data();
    params.first_rows = first_rows.data();
    params.cache_slots = slots.data();
    params.ancestors = ancestors.data();
    TestContext context;
    ASSERT_EQ(cudaSuccess, tree_rows(context, params));
    EXPECT_EQ((std::vector<int32_t>{0, 70, 140, 210}), first_rows.host());
    EXPECT_EQ((std::vector<int32_t>{0, 1, 2}), slots.host());
    for (size_t row = 0; row < rows; ++row) {
      const int b = static_cast<int>(row) / num_nodes, node = static_cast<int>(row) % num_nodes;
      uint64_t mask[2] = {0, 0};
      int depth = -1;
      for (int j = node; j >= 0; j = parents[b * num_nodes + j], ++depth) {
        mask[j / 64] |= uint64_t{1} << j % 64;
      }
      ASSERT_EQ(b, sequences.host()[row]);
      ASSERT_EQ(node, nodes.host()[row]);
      ASSERT_EQ(lengths.host()[b] + depth, positions.host()[row]);
      ASSERT_EQ(mask[0], ancestors.host()[row * 2]);
      ASSERT_EQ(mask[1], ancestors.host()[row * 2 + 1]);
    }
  });
}

TEST(Heads, ReadTheLastAcceptedNode) {
  const int width = 100;
  std::mt19937 random(6);
  const std::vector<float> hidden = random_floats(8 * width, random);
  const DeviceVector<float> device_hidden(hidden), kept(3 * width);
  const DeviceVector<int32_t> first_rows({0, 5}), path({0, 2, -1, 0, -1, -1}), count({2, 1}),
      slots({2, 0});
  GatherHiddenParams gather;
  gather.num_sequences = 2;
  gather.width = width;
  gather.max_path = 3;
  gather.hidden = device_hidden.data();
  gather.first_rows = first_rows.data();
  gather.path = path.data();
  gather.count = count.data();
  gather.slots = slots.data();
  gather.out = kept.data();
  TestContext context;
  ASSERT_EQ(cudaSuccess, gather_hidden(context, gather));
  const std::vector<float> rows = kept.host();
  for (int i = 0; i < width; ++i) {
    EXPECT_EQ(hidden[2 * width + i], rows[2 * width + i]);
    EXPECT_EQ(hidden[5 * width + i], rows[i]);
  }

  // Slot 2 (row 2) with an embedding, slot 0 (row 5) with one of zeros.
  std::vector<float> embedding = random_floats(2 * width, random, 3);
  std::fill(embedding.begin() + width, embedding.end(), 0.0f);
  const auto mean_square = [&](const float* x) {
    return std::inner_product(x, x + width, x, 0.0) / width;
  };
  const double scale = std::sqrt(mean_square(&hidden[2 * width]) / mean_square(embedding.data()));
  const DeviceVector<float> device_embedding(embedding);
  under_schedules([&] {
    for (const bool rooted : {false, true}) {
      const int input_width = rooted ? 2 * width : width;
      const DeviceVector<float> inputs(2 * static_cast<size_t>(input_width)), blocks(2 * 3 * width);
      HeadInputsParams params;
      params.num_sequences = 2;
      params.num_heads = 3;
      params.width = width;
      params.hidden = kept.data();
      params.slots = slots.data();
      params.root_embedding = rooted ? device_embedding.data() : nullptr;
      params.inputs = inputs.data();
      params.blocks = blocks.data();
      ASSERT_EQ(cudaSuccess, head_inputs(context, params));
      const std::vector<float> in = inputs.host(), copies = blocks.host();
      for (int b = 0; b < 2; ++b) {
        for (int i = 0; i < width; ++i) {
          const float x = hidden[(b == 0 ? 2 : 5) * width + i];
          EXPECT_EQ(x, in[b * input_width + i]);
          for (int k = 0; k < 3; ++k) EXPECT_EQ(x, copies[(b * 3 + k) * width + i]);
          if (!rooted) continue;
          const double e = b == 0 ? embedding[i] * scale : 0;
          EXPECT_NEAR(e, in[b * input_width + width + i], 1e-5 * std::abs(e));
        }
      }
    }
  });
}

}  // namespace
}  // namespace medusa::cuda::testing
