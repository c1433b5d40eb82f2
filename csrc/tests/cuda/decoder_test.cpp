// A whole tiny decoder on the device: its tokens are the CPU's, plain and over trees.
#include "model/decoder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "cpu/backend.h"
#include "cuda/context.h"
#include "cuda/kernels.h"
#include "cuda/step.h"
#include "cuda/step_ring.h"
#include "cuda/table.h"
#include "model/session.h"
#include "tests/cuda/device.h"
#include "tests/cuda/schedules.h"
#include "tests/tiny_model.h"

namespace medusa::cuda::testing {
namespace {

using medusa::testing::RandomWeights;

const std::vector<int32_t> kPrompt = {5, 17, 42, 42, 9, 3, 77, 100, 0, 1, 2, 64, 33};
constexpr int32_t kNumTokens = 64;

ModelConfig small_config(int32_t window) {
  ModelConfig config;
  config.num_layers = 2;
  config.hidden_size = 64;
  config.num_query_heads = 3;
  config.num_kv_heads = 1;
  config.head_size = 64;
  config.ffn_size = 96;
  config.vocab_size = 211;
  config.qkv_bias = true;
  config.qk_norm = true;
  config.tied_embeddings = true;
  config.layer_windows = {window, 0};
  for (int32_t i = 0; i < config.head_size / 2; ++i) {
    config.inverse_frequencies.push_back(std::pow(1e4, -2.0 * i / config.head_size));
  }
  return config;
}

/// The same weights on any backend.
std::shared_ptr<Model> make_model(const Backend& backend, DType format, int32_t window) {
  const ModelConfig config = small_config(window);
  Formats formats = {{"embed", format}};
  for (int32_t i = 0; i < config.num_layers; ++i) {
    for (const char* name : {"q", "k", "v", "o", "gate", "up", "down"}) {
      formats["layers." + std::to_string(i) + "." + name] = format;
    }
  }
  ModelBuilder builder(config, formats, backend);
  WeightSlots& slots = builder.slots();
  RandomWeights random(3);
  random.set_matrix(slots, "embed", config.vocab_size, config.hidden_size);
  random.set_vector(slots, "final_norm", config.hidden_size, 1);
  for (int32_t i = 0; i < config.num_layers; ++i) {
    const std::string prefix = "layers." + std::to_string(i) + ".";
    for (const char* name : {"attn_norm", "ffn_norm"}) {
      random.set_vector(slots, prefix + name, config.hidden_size, 1);
    }
    random.set_matrix(slots, prefix + "q", config.q_width(), config.hidden_size);
    random.set_vector(slots, prefix + "q_bias", config.q_width(), 0);
    random.set_vector(slots, prefix + "q_norm", config.head_size, 1);
    for (const char* name : {"k", "v"}) {
      random.set_matrix(slots, prefix + name, config.kv_width(), config.hidden_size);
      random.set_vector(slots, prefix + name + "_bias", config.kv_width(), 0);
    }
    random.set_vector(slots, prefix + "k_norm", config.head_size, 1);
    random.set_matrix(slots, prefix + "o", config.hidden_size, config.q_width());
    random.set_matrix(slots, prefix + "gate", config.ffn_size, config.hidden_size);
    random.set_matrix(slots, prefix + "up", config.ffn_size, config.hidden_size);
    random.set_matrix(slots, prefix + "down", config.hidden_size, config.ffn_size);
  }
  return builder.finish();
}

/// Guesses for the next tokens: the truth as far as it goes on a random path, and random others.
void plant(Session& session, const std::vector<int32_t>& truth, size_t done, std::mt19937& random) {
  const int32_t vocab = session.model().config().vocab_size;
  int32_t true_node = 0;
  const int32_t num_nodes = static_cast<int32_t>(random() % 20);
  for (int32_t i = 0; i < num_nodes && session.tree(0).num_nodes() < session.max_nodes(); ++i) {
    if (random() % 2 == 0 && done < truth.size()) {
      true_node = session.add_node(0, true_node, truth[done++]);
    } else {
      const auto parent = static_cast<int32_t>(random() % session.tree(0).num_nodes());
      session.add_node(0, parent, static_cast<int32_t>(random() % vocab));
    }
  }
}

/// The first tokens behind the prompt; with `truth` drafted from it in trees.
std::vector<int32_t> decode(const std::shared_ptr<Model>& model, DType kv_dtype,
                            const Sampling& sampling, const std::vector<int32_t>* truth,
                            int* num_steps) {
  Session session(model, 1, 120, 24, kv_dtype);
  session.set_sampling(sampling);
  std::mt19937 random(9);
  std::vector<int32_t> tokens = {
      session.prefill(0, kPrompt.data(), static_cast<int32_t>(kPrompt.size()), nullptr)};
  for (*num_steps = 0; tokens.size() < kNumTokens; ++*num_steps) {
    session.begin_step();
    if (truth != nullptr) plant(session, *truth, tokens.size(), random);
    session.verify();
    session.accept();
    session.compact();
    tokens.insert(tokens.end(), session.emitted(0).begin(), session.emitted(0).end());
  }
  tokens.resize(kNumTokens);
  return tokens;
}

Sampling sampling_at(float temperature) {
  Sampling sampling;
  sampling.temperature = temperature;
  sampling.top_p = 0.95f;
  sampling.top_k = 50;
  sampling.seeds = {21};
  return sampling;
}

void check(DType format, float temperature, int32_t window) {
  SCOPED_TRACE(::testing::Message()
               << dtype_name(format) << " T " << temperature << " window " << window);
  const Sampling sampling = sampling_at(temperature);
  int num_steps = 0;
  const std::vector<int32_t> expected = decode(make_model(cpu::make_backend(), format, window),
                                               format, sampling, nullptr, &num_steps);
  const std::shared_ptr<Model> model = make_model(make_backend(), format, window);
  const auto compare = [&] {
    EXPECT_EQ(expected, decode(model, format, sampling, nullptr, &num_steps)) << "plain";
    EXPECT_EQ(kNumTokens - 1, num_steps);
    EXPECT_EQ(expected, decode(model, format, sampling, &expected, &num_steps)) << "over trees";
    EXPECT_LT(num_steps, kNumTokens * 3 / 4) << "the planted paths were not accepted";
  };
  under_schedules(compare, 1);  // thousands of launches; each kernel's test has the schedules
}

// In float32 both devices compute the same up to the order of sums.
TEST(Decoder, TokensOfTheCpu) {
  check(DType::kFloat32, 0.0f, 0);
  if (is_sanitized() && !soak()) return;
  check(DType::kFloat32, 0.8f, 9);
}

// With 16-bit weights the device also rounds what matrix products read; this model's choices are
// clear enough for that not to matter.
TEST(Decoder, TokensOfTheCpuIn16Bits) {
  check(DType::kBFloat16, 0.0f, 9);
  if (is_sanitized() && !soak()) return;
  check(DType::kFloat16, 0.0f, 0);
}

/// Steps of one sequence that run on the device alone, as a captured graph would: the host fills
/// the drafts, launches, and polls the ring.
class DeviceSteps {
 public:
  static constexpr int32_t kNodes = 12, kPath = 6, kDrafts = 10, kRows = 128;

  DeviceSteps(const std::shared_ptr<Model>& model, int32_t end_token)
      : model_(model),
        context_(model->backend().make_context()),
        decoder_(model, kRows, kRows),
        cache_(*model, DType::kFloat32, 1, kRows),
        ring_(2, 1, kPath),
        end_token_(std::vector<int32_t>{end_token}) {}

  /// The prompt in one chunk; its last target is the first root.
  void prefill() {
    const auto count = static_cast<int32_t>(kPrompt.size());
    std::vector<int32_t> nodes(kPrompt.size());
    for (int32_t i = 0; i < count; ++i) nodes[i] = i;
    const DeviceVector<int32_t> tokens(kPrompt), places(nodes),
        sequences(std::vector<int32_t>(kPrompt.size(), 0)),
        first_rows(std::vector<int32_t>{0, count}), zero(std::vector<int32_t>{0});
    RowTable rows;
    rows.num_rows = count;
    rows.num_sequences = 1;
    rows.tokens = tokens.data();
    rows.sequences = sequences.data();
    rows.positions = places.data();
    rows.nodes = places.data();
    rows.first_rows = first_rows.data();
    rows.cache_slots = zero.data();
    rows.lengths = zero.data();
    ForwardOutputs outputs;
    outputs.first_output = count - 1;
    outputs.num_outputs = outputs.num_targets = 1;
    outputs.targets = root_.data();
    decoder_.forward(*context_, rows, cache_, outputs);
    ASSERT_EQ(cudaSuccess, cudaDeviceSynchronize());
  }

  int32_t root() const { return root_.host()[0]; }

  /// The launches of one step. `drafts` hang one below the other.
  void launch(const std::vector<int32_t>& drafts) {
    for (size_t i = 0; i < drafts.size(); ++i) {
      draft_tokens_.data()[i] = drafts[i];
      draft_parents_.data()[i] = static_cast<int32_t>(i) - 1;
    }
    num_drafts_.data()[0] = static_cast<int32_t>(drafts.size());

    const CudaContext& context = cuda_context(*context_);
    MergeDraftsParams merge;
    merge.num_sequences = 1;
    merge.num_base_nodes = 1;
    merge.base_parents = no_parent_.data();
    merge.base_tokens = root_.data();
    merge.max_drafts = kDrafts;
    merge.draft_tokens = draft_tokens_.data();
    merge.draft_parents = draft_parents_.data();
    merge.num_drafts = num_drafts_.data();
    merge.max_nodes = kNodes;
    merge.max_path = kPath;
    merge.tokens = tokens_.data();
    merge.parents = parents_.data();
    merge.num_nodes = num_nodes_.data();
    ASSERT_EQ(cudaSuccess, merge_drafts(context, merge));
    const RowTable rows = make_rows(context);
    ForwardOutputs outputs;
    outputs.num_outputs = outputs.num_targets = kNodes;
    outputs.targets = targets_.data();
    decoder_.forward(*context_, rows, cache_, outputs);
    finish(context);
  }

  const StepRing& ring() const { return ring_; }
  int32_t length() const { return length_.host()[0]; }

 private:
  RowTable make_rows(const CudaContext& context) {
    TreeRowsParams params;
    params.num_sequences = 1;
    params.num_nodes = kNodes;
    params.mask_words = 1;
    params.parents = parents_.data();
    params.lengths = length_.data();
    params.sequences = sequences_.data();
    params.positions = positions_.data();
    params.nodes = nodes_.data();
    params.first_rows = first_rows_.data();
    params.cache_slots = slots_.data();
    params.ancestors = ancestors_.data();
    EXPECT_EQ(cudaSuccess, tree_rows(context, params));
    return {kNodes,
            1,
            1,
            tokens_.data(),
            sequences_.data(),
            positions_.data(),
            nodes_.data(),
            first_rows_.data(),
            slots_.data(),
            length_.data(),
            ancestors_.data()};
  }

  void finish(const CudaContext& context) {
    AcceptParams params;
    params.num_sequences = 1;
    params.max_nodes = kNodes;
    params.max_path = kPath;
    params.tokens = tokens_.data();
    params.targets = targets_.data();
    params.parents = parents_.data();
    params.num_nodes = num_nodes_.data();
    params.path = path_.data();
    params.count = count_.data();
    params.next_root = root_.data();
    ASSERT_EQ(cudaSuccess, accept(context, params));
    PublishParams results;
    results.num_sequences = 1;
    results.max_nodes = kNodes;
    results.max_path = kPath;
    results.tokens = tokens_.data();
    results.path = path_.data();
    results.count = count_.data();
    results.next_root = root_.data();
    results.num_end_tokens = 1;
    results.end_tokens = end_token_.data();
    results.finished = finished_.data();
    results.step = step_.data();
    results.entries = ring_.entries();
    ASSERT_EQ(cudaSuccess, publish(context, results));
    CompactParams move = cache_.compact_rows();
    move.num_sequences = 1;
    move.max_path = kPath;
    move.path = path_.data();
    move.count = count_.data();
    move.length = length_.data();
    ASSERT_EQ(cudaSuccess, compact(context, move));
  }

  std::shared_ptr<Model> model_;
  std::unique_ptr<Context> context_;
  Decoder decoder_;
  KvCacheStorage cache_;
  StepRing ring_;
  PinnedVector draft_tokens_{kDrafts}, draft_parents_{kDrafts}, num_drafts_{1};
  DeviceVector<int32_t> tokens_{kNodes}, parents_{kNodes}, num_nodes_{1}, sequences_{kNodes};
  DeviceVector<int32_t> positions_{kNodes}, nodes_{kNodes}, first_rows_{2}, slots_{1};
  DeviceVector<int32_t> targets_{kNodes}, path_{kPath}, count_{1}, root_{1};
  DeviceVector<uint64_t> ancestors_{kNodes};
  DeviceVector<int32_t> no_parent_{std::vector<int32_t>{-1}}, finished_{std::vector<int32_t>{0}};
  DeviceVector<int32_t> length_{std::vector<int32_t>{static_cast<int32_t>(kPrompt.size())}};
  DeviceVector<uint64_t> step_{std::vector<uint64_t>{0}};
  DeviceVector<int32_t> end_token_;
};

TEST(Decoder, StepsWithoutTheHost) {
  int num_steps = 0;
  const std::vector<int32_t> expected =
      decode(make_model(cpu::make_backend(), DType::kFloat32, 0), DType::kFloat32, sampling_at(0),
             nullptr, &num_steps);
  const int32_t end_token = expected[40];
  const auto end = std::find(expected.begin(), expected.end(), end_token);
  DeviceSteps steps(make_model(make_backend(), DType::kFloat32, 0), end_token);
  steps.prefill();
  std::vector<int32_t> tokens = {steps.root()};
  std::mt19937 random(5);
  bool finished = tokens[0] == end_token;
  for (uint64_t step = 0; !finished; ++step) {
    // The true continuation, now and then with a wrong token in it.
    std::vector<int32_t> drafts;
    for (size_t i = tokens.size(); i < expected.size() && drafts.size() < step % 9; ++i) {
      drafts.push_back(random() % 6 == 0 ? 200 : expected[i]);
    }
    steps.launch(drafts);
    ASSERT_EQ(cudaSuccess, cudaDeviceSynchronize());
    ASSERT_TRUE(steps.ring().is_ready(step));
    const StepRing::Sequence result = steps.ring().read(step, 0);
    tokens.insert(tokens.end(), result.tokens.begin(), result.tokens.end());
    finished = result.finished;
    ASSERT_LE(tokens.size(), expected.size());
  }
  EXPECT_EQ(std::vector<int32_t>(expected.begin(), end + 1), tokens);
  // Rows of all tokens but the end token, which is the root that no step has fed.
  EXPECT_EQ(kPrompt.size() + tokens.size() - 1, static_cast<size_t>(steps.length()));
}

}  // namespace
}  // namespace medusa::cuda::testing
