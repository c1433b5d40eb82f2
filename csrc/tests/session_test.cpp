// Decoding a tiny random model: trees against plain decoding, bit for bit.
#include "engine/session.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "tests/kernels_under_test.h"
#include "tests/plain_decoding.h"
#include "tests/tiny_model.h"

namespace medusa {
namespace {

using testing::decode_plainly;
using testing::greedy;
using testing::kPrompt;
using testing::make_tiny_heads;
using testing::make_tiny_model;
using testing::node_logits;
using testing::Plain;
using testing::sampled;
using testing::Sampling;
using testing::step;
using testing::TinyOptions;

/// A random tree with the true continuation planted along a random path of random length.
void plant(Session& session, const std::vector<int32_t>& truth, size_t done, std::mt19937& random,
           int32_t num_nodes) {
  const int32_t vocab = session.model().config().vocab_size;
  std::vector<int32_t> true_nodes = {0};
  for (int32_t i = 0; i < num_nodes; ++i) {
    const bool extends_truth = random() % 3 == 0 && done + true_nodes.size() < truth.size();
    if (extends_truth) {
      const int32_t node =
          session.add_node(0, true_nodes.back(), truth[done + true_nodes.size() - 1]);
      if (node > 0) true_nodes.push_back(node);
    } else {
      const int32_t parent = static_cast<int32_t>(random() % session.tree(0).num_nodes());
      session.add_node(0, parent, static_cast<int32_t>(random() % vocab));
    }
  }
}

class SessionTest : public ::testing::TestWithParam<std::tuple<WeightFormat, std::string>> {
 protected:
  TinyOptions options() const {
    TinyOptions options;
    std::tie(options.format, options.isa) = GetParam();
    return options;
  }
};

void expect_planted_trees_exact(const TinyOptions& options, const Sampling& sampling) {
  const std::shared_ptr<Model> model = make_tiny_model(options);
  const Plain plain = decode_plainly(model, sampling, 60);
  for (int num_threads : {1, 2}) {
    for (uint32_t seed = 0; seed < 4; ++seed) {
      std::mt19937 random(seed);
      Session session(model, 1, 200, 80, DType::kFloat32);
      session.set_num_threads(num_threads);
      session.keep_logits(0, true);
      session.set_sampling(0, sampling.rule, sampling.seed);
      std::vector<int32_t> tokens = {
          session.prefill(0, kPrompt.data(), static_cast<int32_t>(kPrompt.size()), nullptr)};
      std::set<size_t> counts;
      while (tokens.size() < 45) {
        session.begin_step();
        plant(session, plain.tokens, tokens.size(), random,
              1 + static_cast<int32_t>(random() % 79));
        step(session);
        const std::vector<int32_t>& path = session.accepted_path(0);
        counts.insert(path.size());
        for (size_t i = 0; i < path.size(); ++i) {
          ASSERT_EQ(node_logits(session, 0, path[i]), plain.logits[tokens.size() + i]);
        }
        tokens.insert(tokens.end(), session.emitted(0).begin(), session.emitted(0).end());
        ASSERT_EQ(session.root(0), tokens.back());
      }
      tokens.resize(45);
      EXPECT_EQ(tokens, std::vector<int32_t>(plain.tokens.begin(), plain.tokens.begin() + 45));
      EXPECT_GT(counts.size(), 2u) << "the planted paths were not accepted";
    }
  }
}

TEST_P(SessionTest, PlantedTreesGiveThePlainTokensAndLogitBits) {
  expect_planted_trees_exact(options(), greedy());
}

TEST_P(SessionTest, PlantedTreesGiveTheSampledTokens) {
  expect_planted_trees_exact(options(), sampled(11));
}

TEST_P(SessionTest, LayersWithNormsAfterTheMixAndWithoutPositions) {
  TinyOptions unlike = options();
  unlike.unlike_layers = true;
  expect_planted_trees_exact(unlike, greedy());
}

TEST_P(SessionTest, SlidingWindowBiasesNormsUntiedAndMixedFormats) {
  TinyOptions odd = options();
  odd.sliding_window = 7;
  odd.qkv_bias = true;
  odd.qk_norm = true;
  odd.tied_embeddings = false;
  odd.mixed_qkv = true;
  expect_planted_trees_exact(odd, greedy());
}

TEST_P(SessionTest, PrefillInPiecesGivesTheSameBits) {
  const std::shared_ptr<Model> model = make_tiny_model(options());
  std::vector<int32_t> prompt;
  for (int32_t i = 0; i < 150; ++i) prompt.push_back(i * 37 % 101);
  std::vector<float> whole;
  Session reference(model, 1, 200, 1, DType::kBFloat16);
  const int32_t root = reference.prefill(0, prompt.data(), 150, &whole);
  for (int32_t piece : {1, 7, 64}) {
    Session session(model, 1, 200, 1, DType::kBFloat16);
    std::vector<float> hidden;
    std::vector<float> all;
    int32_t last = -1;
    for (int32_t begin = 0; begin < 150; begin += piece) {
      last = session.prefill(0, prompt.data() + begin, std::min(piece, 150 - begin), &hidden);
      all.insert(all.end(), hidden.begin(), hidden.end());
    }
    EXPECT_EQ(last, root);
    EXPECT_EQ(all, whole) << piece;
  }
}

TEST_P(SessionTest, BatchesEqualSequencesAlone) {
  const std::shared_ptr<Model> model = make_tiny_model(options());
  const std::vector<std::vector<int32_t>> prompts = {{1, 2, 3}, {50}, kPrompt};
  Session session(model, 3, 100, 12, DType::kFloat32);
  std::vector<std::vector<int32_t>> tokens(3);
  for (int32_t b : {2, 0, 1}) {
    const std::vector<int32_t>& prompt = prompts[static_cast<size_t>(b)];
    tokens[static_cast<size_t>(b)] = {
        session.prefill(b, prompt.data(), static_cast<int32_t>(prompt.size()), nullptr)};
  }
  std::vector<int32_t> active = {0, 1, 2};
  for (int32_t i = 0; i < 14; ++i) {
    if (i == 5) session.set_active(active = {0, 2});
    session.begin_step();
    session.draft_lookup({8, 3, 1, 3});
    step(session);
    for (int32_t b : active) {
      std::vector<int32_t>& row = tokens[static_cast<size_t>(b)];
      row.insert(row.end(), session.emitted(b).begin(), session.emitted(b).end());
    }
  }
  for (size_t b = 0; b < 3; ++b) {
    const int32_t count = static_cast<int32_t>(tokens[b].size());
    EXPECT_EQ(tokens[b], decode_plainly(model, greedy(), count, prompts[b]).tokens) << b;
  }
}

TEST_P(SessionTest, HeadsDraftAndDecodeExactly) {
  const std::shared_ptr<Model> model = make_tiny_model(options());
  const Plain plain = decode_plainly(model, greedy(), 40);
  const TokenTree tree({-1, 0, 0, 1, 1, 3}, {0, 0, 1, 0, 2, 1});
  for (bool root_conditioned : {false, true}) {
    const std::shared_ptr<Heads> heads =
        make_tiny_heads(model, root_conditioned, 2, kFloat32Weights);
    Session session(model, 1, 100, 16, DType::kFloat32);
    std::vector<int32_t> tokens = {
        session.prefill(0, kPrompt.data(), static_cast<int32_t>(kPrompt.size()), nullptr)};
    while (tokens.size() < 40) {
      std::vector<int32_t> ids;
      std::vector<float> log_probs;
      session.head_candidates(heads, 3, &ids, &log_probs);
      session.begin_step();
      session.draft_heads(heads, tree);
      ASSERT_EQ(session.tree(0).num_nodes(), 6);
      EXPECT_EQ(session.tree(0).tokens()[1], ids[0]);
      EXPECT_EQ(session.tree(0).tokens()[5], ids[2 * 3 + 1]);
      for (int32_t id : ids) EXPECT_EQ(id % 2, 1);
      step(session);
      tokens.insert(tokens.end(), session.emitted(0).begin(), session.emitted(0).end());
    }
    tokens.resize(40);
    EXPECT_EQ(tokens, plain.tokens);
  }
}

// Sequences of one step may take drafts of different kinds, or none.
TEST_P(SessionTest, DraftsAreForTheSequencesNamed) {
  const std::shared_ptr<Model> model = make_tiny_model(options());
  const std::shared_ptr<Heads> heads = make_tiny_heads(model, true, 2, kFloat32Weights);
  const TokenTree tree({-1, 0, 0, 1}, {0, 0, 1, 0});
  const std::vector<int32_t> prompt = {3, 9, 3, 9, 3};
  Session session(model, 3, 100, 16, DType::kFloat32);
  for (int32_t b : {0, 1, 2}) session.prefill(b, prompt.data(), 5, nullptr);
  EXPECT_THROW(session.draft_for({0}), std::logic_error);
  session.truncate(1, 5, 9);  // its text ends as it began, so that lookup has a match
  session.set_active({0, 1});
  session.begin_step();
  EXPECT_THROW(session.draft_for({2}), std::invalid_argument);
  session.draft_for({0});
  session.draft_heads(heads, tree);
  session.draft_for({1});
  const LookupOptions lookup{3, 2, 1, 1};
  const std::vector<int32_t> guesses = session.look_up(1, lookup);
  EXPECT_EQ(session.tree(1).num_nodes(), 1);
  EXPECT_EQ(session.draft_lookup(lookup), 1);
  EXPECT_EQ(session.tree(0).num_nodes(), 4);
  EXPECT_EQ(guesses, std::vector<int32_t>({3, 9, 3}));
  const std::vector<int32_t>& drafted = session.tree(1).tokens();
  EXPECT_EQ(std::vector<int32_t>(drafted.begin() + 1, drafted.end()), guesses);
  session.begin_step();
  EXPECT_EQ(session.draft_lookup(lookup), session.look_up(0, lookup).empty() ? 1 : 2);
}

TEST_P(SessionTest, TruncationContinuesAsIfNothingHadFollowed) {
  const std::shared_ptr<Model> model = make_tiny_model(options());
  const Plain plain = decode_plainly(model, greedy(), 30);
  const int32_t prompt_length = static_cast<int32_t>(kPrompt.size());
  for (int32_t keep = 0; keep < 12; ++keep) {
    Session session(model, 1, 100, 8, DType::kFloat32);
    session.prefill(0, kPrompt.data(), prompt_length, nullptr);
    while (session.length(0) < prompt_length + 14) {
      session.begin_step();
      session.draft_lookup({7, 2, 1, 2});
      step(session);
    }
    session.truncate(0, prompt_length + keep, plain.tokens[static_cast<size_t>(keep)]);
    std::vector<int32_t> tokens(plain.tokens.begin(), plain.tokens.begin() + keep + 1);
    while (tokens.size() < 30) {
      session.begin_step();
      session.draft_lookup({7, 2, 1, 2});
      step(session);
      tokens.insert(tokens.end(), session.emitted(0).begin(), session.emitted(0).end());
    }
    tokens.resize(30);
    EXPECT_EQ(tokens, plain.tokens) << keep;
  }
}

// An end token cuts the path that it is on; without it steps go on after it.
TEST_P(SessionTest, EndTokensEndAStep) {
  const std::shared_ptr<Model> model = make_tiny_model(options());
  const Plain plain = decode_plainly(model, greedy(), 40);
  for (const bool ends : {false, true}) {
    Session session(model, 1, 100, 8, DType::kFloat32);
    if (ends) session.set_end_tokens(0, {-5, plain.tokens[20]});
    session.prefill(0, kPrompt.data(), static_cast<int32_t>(kPrompt.size()), nullptr);
    std::vector<int32_t> tokens = {plain.tokens[0]};
    while (tokens.size() < 30) {
      session.begin_step();
      int32_t node = 0;
      for (size_t i = 0; i < 7; ++i)
        node = session.add_node(0, node, plain.tokens[tokens.size() + i]);
      step(session);
      const std::vector<int32_t>& emitted = session.emitted(0);
      tokens.insert(tokens.end(), emitted.begin(), emitted.end());
      EXPECT_EQ(emitted.size(), session.accepted_path(0).size());
      EXPECT_EQ(kPrompt.size() + tokens.size() - 1, static_cast<size_t>(session.length(0)));
      const auto end = std::find(emitted.begin(), emitted.end(), plain.tokens[20]);
      if (ends && end != emitted.end()) {
        EXPECT_EQ(emitted.end(), end + 1);
      }
      if (!ends) {
        EXPECT_EQ(8u, emitted.size());
      }
    }
    EXPECT_EQ(tokens,
              std::vector<int32_t>(plain.tokens.begin(), plain.tokens.begin() + tokens.size()));
  }
}

std::vector<std::tuple<WeightFormat, std::string>> all_variants() {
  std::vector<std::tuple<WeightFormat, std::string>> variants;
  for (const std::string& isa : isas_under_test()) {
    for (const NamedWeightFormat& known : kWeightFormats) {
      variants.emplace_back(known.format, isa);
    }
  }
  return variants;
}

// Where the machine lacks what MEDUSA_ISA names.
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(SessionTest);
INSTANTIATE_TEST_SUITE_P(Formats, SessionTest, ::testing::ValuesIn(all_variants()),
                         [](const auto& info) {
                           return std::string(weight_format_name(std::get<0>(info.param))) + "_" +
                                  std::get<1>(info.param);
                         });

TEST(SessionLimitsTest, TreesAreCutAtTheCachesEnd) {
  const std::shared_ptr<Model> model = make_tiny_model({});
  Session session(model, 1, 12, 8, DType::kFloat32);
  session.prefill(0, kPrompt.data(), 11, nullptr);
  session.begin_step();
  EXPECT_EQ(session.add_node(0, 0, 4), -1);
  step(session);
  EXPECT_EQ(session.length(0), 12);
  EXPECT_THROW(session.begin_step(), std::invalid_argument);
}

TEST(SessionLimitsTest, BadInputIsRefusedAndTheSessionStaysUsable) {
  const std::shared_ptr<Model> model = make_tiny_model({});
  EXPECT_THROW(Session(model, 0, 12, 8, DType::kFloat32), std::invalid_argument);
  EXPECT_THROW(Session(model, 1, 0, 8, DType::kFloat32), std::invalid_argument);
  EXPECT_THROW(Session(model, 1, 12, 1025, DType::kFloat32), std::invalid_argument);
  Session session(model, 1, 12, 4, DType::kFloat32);
  session.begin_step();
  EXPECT_THROW(session.add_node(0, 0, 5), std::invalid_argument);
  EXPECT_THROW(session.set_tree(0, {5}, {-1}), std::invalid_argument);
  EXPECT_THROW(session.verify(), std::invalid_argument);
  const std::vector<int32_t> bad = {1, 101};
  EXPECT_THROW(session.prefill(0, bad.data(), 2, nullptr), std::invalid_argument);
  EXPECT_THROW(session.prefill(0, kPrompt.data(), 0, nullptr), std::invalid_argument);
  const std::vector<int32_t> longer(13, 1);
  EXPECT_THROW(session.prefill(0, longer.data(), 13, nullptr), std::invalid_argument);
  EXPECT_THROW(session.prefill(1, kPrompt.data(), 3, nullptr), std::invalid_argument);
  EXPECT_THROW(session.verify(), std::logic_error);
  EXPECT_THROW(session.set_active({}), std::invalid_argument);
  EXPECT_THROW(session.set_active({0, 0}), std::invalid_argument);
  const int32_t root = session.prefill(0, kPrompt.data(), 3, nullptr);
  session.begin_step();
  EXPECT_THROW(session.add_node(0, 1, 5), std::invalid_argument);
  EXPECT_THROW(session.add_node(0, 0, -1), std::invalid_argument);
  EXPECT_THROW(session.set_tree(0, {root, 5, 6}, {-1, 0, 2}), std::invalid_argument);
  EXPECT_THROW(session.set_tree(0, {root + 1}, {-1}), std::invalid_argument);
  EXPECT_THROW(session.set_tree(0, {root, 1, 2, 3, 4}, {-1, 0, 0, 0, 0}), std::invalid_argument);
  session.set_tree(0, {root, 5, 6}, {-1, 0, 1});
  step(session);
  EXPECT_THROW(session.truncate(0, 99, -1), std::invalid_argument);
  EXPECT_GE(session.length(0), 4);
}

TEST(SessionLimitsTest, OneSessionServesOneThreadAtATime) {
  const std::shared_ptr<Model> model = make_tiny_model({});
  Session session(model, 1, 12, 4, DType::kFloat32);
  const Session::Busy busy(session);
  EXPECT_THROW(const Session::Busy second(session), std::runtime_error);
}

TEST(SessionLimitsTest, SessionsOfOneModelRunInSeveralThreads) {
  const std::shared_ptr<Model> model = make_tiny_model({});
  const Plain plain = decode_plainly(model, greedy(), 40);
  std::vector<std::vector<int32_t>> results(3);
  std::vector<std::thread> threads;
  for (std::vector<int32_t>& tokens : results) {
    threads.emplace_back(
        [&tokens, &model] { tokens = decode_plainly(model, greedy(), 40).tokens; });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::vector<int32_t>& tokens : results) EXPECT_EQ(tokens, plain.tokens);
}

// A backend says which formats it takes; what it lacks is refused by name, before any packing.
TEST(ModelBuilderTest, AFormatThatTheKernelsLackIsRefused) {
  const TinyOptions options;
  Backend backend = cpu::make_backend();
  KernelTable kernels = *backend.kernels;
  kernels.supports = [](const WeightFormat& format) { return format == kInt8Weights; };
  backend.kernels = &kernels;
  try {
    make_tiny_model(options, backend);
    FAIL() << "float32 was taken";
  } catch (const std::invalid_argument& error) {
    const std::string message = error.what();
    EXPECT_NE(message.find("needs one of int8 ("), std::string::npos) << message;
    EXPECT_NE(message.find("got float32"), std::string::npos) << message;
  }
}

TEST(ModelBuilderTest, MissingAndWrongTensorsAreNamed) {
  const TinyOptions options;
  const ModelConfig config = testing::tiny_config(options);
  Formats formats = {{"embed", kFloat32Weights}};
  EXPECT_THROW(ModelBuilder(config, formats, cpu::make_backend()), std::invalid_argument);
  for (int32_t i = 0; i < config.num_layers(); ++i) {
    for (const char* name : {"q", "k", "v", "o", "gate", "up", "down"}) {
      formats["layers." + std::to_string(i) + "." + name] = kFloat32Weights;
    }
  }
  ModelBuilder builder(config, formats, cpu::make_backend());
  const std::vector<float> row(100, 1.0f);
  WeightSlots& slots = builder.slots();
  EXPECT_THROW(slots.set_rows("nothing", 0, SourceType::kFloat32, row.data(), 1, 192),
               std::invalid_argument);
  EXPECT_THROW(slots.set_rows("embed", 0, SourceType::kFloat32, row.data(), 1, 188),
               std::invalid_argument);
  EXPECT_THROW(slots.set_rows("embed", 1, SourceType::kFloat32, row.data(), 1, 192),
               std::invalid_argument);
  EXPECT_THROW(slots.set_vector("final_norm", row.data(), 47), std::invalid_argument);
  try {
    builder.finish();
    FAIL() << "an empty model was built";
  } catch (const std::invalid_argument& error) {
    EXPECT_NE(std::string(error.what()).find("layers.1.down"), std::string::npos);
  }
}

}  // namespace
}  // namespace medusa
