// Sessions whose steps are recorded once and replayed: their tokens are the CPU's.
//
// The emulator records what a captured stream is asked to do: each launch and copy with the values
// it was given, in order. So these tests show that all that changes from step to step reaches the
// kernels through memory (a value frozen by the recording would give old tokens), that the memory a
// recording uses stays where it was, that nothing in a step allocates, waits, or copies from
// pageable memory, and that the host learns all it needs from the ring. They do not show that the
// driver can instantiate the graph, nor anything about overlap: here a launch is over when it
// returns, so polling never polls.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "cpu/runtime/backend.h"
#include "cuda/runtime/table.h"
#include "engine/session.h"
#include "tests/cuda/device.h"
#include "tests/cuda/schedules.h"
#include "tests/tiny_model.h"

namespace medusa::cuda::testing {
namespace {

using medusa::testing::make_tiny_heads;
using medusa::testing::make_tiny_model;

using Texts = std::vector<std::vector<int32_t>>;

constexpr int32_t kBatch = 3;
constexpr int32_t kVocab = 101;
const std::vector<int32_t> kPrompt = {5, 17, 42, 42, 9, 3, 77, 100, 0, 1, 2};

/// What a run drafts. Its trees follow the random numbers alone, never what the session answers.
struct Drafting {
  bool heads = false;
  bool root_conditioned = false;
  bool lookup = false;
  int32_t num_steps = 20;
  int32_t max_nodes = 40;
  int32_t max_wrong = 20;  // random nodes below the root
  Texts truth;             // [B], planted in pieces; empty: not
};

using Rules = std::array<SamplingRule, kBatch>;

Rules sampling_at(float temperature, bool typical) {
  const SamplingRule rule = {temperature, 0.9f, 0, typical};
  return {rule, rule, rule};
}

void draft(Session& session, const std::vector<int32_t>& active, const Drafting& drafting,
           const std::shared_ptr<Heads>& heads, int step, std::mt19937& random) {
  const TokenTree small({-1, 0, 0, 1}, {0, 0, 1, 0});
  const TokenTree large({-1, 0, 0, 0, 1, 1, 4}, {0, 0, 1, 9, 0, 1, 2});
  if (drafting.lookup && step % 3 != 1) session.draft_lookup({6, 3, 1, 2});
  if (heads && step % 4 != 3) session.draft_heads(heads, step % 3 == 0 ? large : small);
  for (int32_t b : active) {
    int32_t node = 0;
    const size_t num_true = drafting.truth.empty() ? 0 : random() % 5;
    for (size_t i = 0; i < num_true && node >= 0; ++i) {
      const size_t position = static_cast<size_t>(session.length(b)) + 1 + i;
      if (position < drafting.truth[b].size()) {
        node = session.add_node(b, node, drafting.truth[b][position]);
      }
    }
    const auto num_wrong = static_cast<int32_t>(random() % (drafting.max_wrong + 1));
    for (int32_t i = 0; i < num_wrong && step % 5 != 4; ++i) {
      session.add_node(b, 0, static_cast<int32_t>(random() % kVocab));
    }
  }
}

/// Texts after some steps; sequence 1 leaves half-way.
Texts decode(const std::shared_ptr<Model>& model, const Rules& rules, const Drafting& drafting,
             size_t* num_recorded = nullptr) {
  std::shared_ptr<Heads> heads;
  if (drafting.heads) {
    heads = make_tiny_heads(model, drafting.root_conditioned, 2, kFloat32Weights);
  }
  Session session(model, kBatch, 200, drafting.max_nodes, DType::kFloat32);
  for (int32_t b = 0; b < kBatch; ++b) {
    session.set_sampling(b, rules[static_cast<size_t>(b)], 4 + static_cast<uint64_t>(b));
    session.prefill(b, kPrompt.data(), static_cast<int32_t>(kPrompt.size()) - b, nullptr);
  }
  std::mt19937 random(1);
  std::vector<int32_t> active = {0, 1, 2};
  for (int step = 0; step < drafting.num_steps; ++step) {
    if (step == drafting.num_steps / 2) session.set_active(active = {0, 2});
    session.begin_step();
    draft(session, active, drafting, heads, step, random);
    session.verify();
    session.accept();
    session.compact();
  }
  if (num_recorded) *num_recorded = session.num_recorded_steps();
  Texts texts;
  for (int32_t b = 0; b < kBatch; ++b) texts.push_back(session.text(b));
  return texts;
}

Drafting plain(int32_t num_steps) {
  Drafting drafting;
  drafting.num_steps = num_steps;
  drafting.max_nodes = 1;
  drafting.max_wrong = 0;
  return drafting;
}

/// Runs on both; `truth` is a prefix of what the CPU decodes plainly.
void check_lossless(float temperature, Drafting drafting) {
  const Rules sampling = sampling_at(temperature, false);
  const std::shared_ptr<Model> on_cpu = make_tiny_model({});
  drafting.truth = decode(on_cpu, sampling, plain(100));
  const std::shared_ptr<Model> model = make_tiny_model({}, make_backend());
  under_schedules(
      [&] {
        size_t num_recorded = 0;
        const Texts texts = decode(model, sampling, drafting, &num_recorded);
        EXPECT_GE(num_recorded, 3u);
        for (size_t b = 0; b < kBatch; ++b) {
          const std::vector<int32_t>& truth = drafting.truth[b];
          EXPECT_GT(texts[b].size(), kPrompt.size() + drafting.num_steps * 3 / 4)
              << "the planted paths were not accepted";
          ASSERT_LE(texts[b].size(), truth.size());
          EXPECT_EQ(std::vector<int32_t>(truth.begin(), truth.begin() + texts[b].size()), texts[b])
              << b;
        }
      },
      1);
}

TEST(SessionReplay, GreedyWithHeadsAndLookup) {
  Drafting drafting;
  drafting.heads = drafting.root_conditioned = drafting.lookup = true;
  check_lossless(0, drafting);
}

TEST(SessionReplay, SampledWithHeadsAndLookup) {
  if (is_sanitized() && !soak()) return;
  Drafting drafting;
  drafting.heads = drafting.lookup = true;
  check_lossless(0.8f, drafting);
}

TEST(SessionReplay, SampledOverTreesOfTheHost) {
  if (is_sanitized() && !soak()) return;
  check_lossless(0.8f, {});
}

// Plain decoding is replayed as well, in the bucket of one node.
TEST(SessionReplay, WithoutAnyDraft) {
  const Rules sampling = sampling_at(0, false);
  size_t num_recorded = 0;
  EXPECT_EQ(decode(make_tiny_model({}), sampling, plain(12)),
            decode(make_tiny_model({}, make_backend()), sampling, plain(12), &num_recorded));
  EXPECT_EQ(2u, num_recorded);  // of three sequences, then of two
}

// Neither the recorded step nor the one before it goes on from logits that are not finite.
TEST(SessionReplay, LogitsThatAreNotFiniteDecideNoToken) {
  medusa::testing::TinyOptions options;
  options.overflowing_token = 77;
  options.overflowing_layer = 1;
  const std::shared_ptr<Model> model = make_tiny_model(options, make_backend());
  for (const Rules& rules :
       {sampling_at(0, false), sampling_at(0.8f, false), sampling_at(0.8f, true)}) {
    Session session(model, kBatch, 60, 1, DType::kFloat32);
    const std::vector<int32_t> broken = {5, 77};
    EXPECT_THROW(session.prefill(0, broken.data(), 2, nullptr), std::runtime_error);
    EXPECT_EQ(0, session.length(0));
    for (int32_t b = 0; b < kBatch; ++b) {
      session.set_sampling(b, rules[b], 1);
      session.prefill(b, kPrompt.data(), 5, nullptr);
    }
    for (const bool is_broken : {true, false, false, true}) {
      session.truncate(1, 5, is_broken ? 77 : 3);
      session.begin_step();
      session.verify();
      session.accept();
      session.compact();
      EXPECT_EQ(is_broken, session.root(1) < 0);
      EXPECT_GE(session.root(0), 0);
      EXPECT_EQ("", session.failure(0));
      const std::string expected = "logits: need finite numbers; layer 1 is the first";
      EXPECT_EQ(is_broken ? expected : "", session.failure(1).substr(0, expected.size()));
    }
    EXPECT_EQ(1u, session.num_recorded_steps());
  }
}

// A profiled session waits for each phase instead of replaying the step.
TEST(SessionReplay, ProfilingChangesNoToken) {
  const std::vector<int32_t> truth =
      decode(make_tiny_model({}), sampling_at(0, false), plain(9))[0];
  const std::shared_ptr<Model> model = make_tiny_model({}, make_backend());
  const std::shared_ptr<Heads> heads = make_tiny_heads(model, true, 1, kFloat32Weights);
  const TokenTree tree({-1, 0, 0, 1}, {0, 0, 1, 0});
  Session session(model, 1, 100, 8, DType::kFloat32);
  session.prefill(0, kPrompt.data(), static_cast<int32_t>(kPrompt.size()), nullptr);
  for (const bool profiling : {true, false, true}) {
    session.set_profiling(profiling);
    for (int i = 0; i < 2; ++i) {
      session.begin_step();
      session.draft_heads(heads, tree);
      EXPECT_EQ(profiling, session.tree(0).tokens()[1] >= 0) << "whether the heads have run";
      session.verify();
      session.accept();
      session.compact();
    }
    if (!profiling) {
      EXPECT_EQ(1u, session.num_recorded_steps());
    }
  }
  const std::vector<int32_t>& text = session.text(0);
  EXPECT_EQ(std::vector<int32_t>(truth.begin(), truth.begin() + text.size()), text);
}

// Typical acceptance depends on the tree: these hold the same drafts on both devices, though heads
// and host propose some of them twice.
TEST(SessionReplay, TypicalAcceptance) {
  if (is_sanitized() && !soak()) return;
  const Rules sampling = sampling_at(1.1f, true);
  Drafting drafting;
  drafting.heads = true;
  drafting.max_nodes = 64;
  drafting.max_wrong = 40;
  EXPECT_EQ(decode(make_tiny_model({}), sampling, drafting),
            decode(make_tiny_model({}, make_backend()), sampling, drafting));
}

/// One step over a tree with the next `num_true` tokens of `truth` in it.
void step(Session& session, const std::vector<int32_t>& truth, int32_t num_true,
          int32_t num_wrong = 0) {
  session.begin_step();
  int32_t node = 0;
  for (int32_t i = 0; i < num_true; ++i) {
    node = session.add_node(0, node, truth[static_cast<size_t>(session.length(0) + 1 + i)]);
  }
  for (int32_t i = 0; i < num_wrong; ++i) session.add_node(0, 0, i);
  session.verify();
  session.accept();
  session.compact();
}

// An end token in the middle of an accepted path cuts it on the device; the session then goes on
// after that token as if it had been the next root all along.
TEST(SessionReplay, EndTokensEndAStep) {
  const Rules sampling = sampling_at(0, false);
  const std::vector<int32_t> truth = decode(make_tiny_model({}), sampling, plain(60))[0];
  Session session(make_tiny_model({}, make_backend()), 1, 200, 8, DType::kFloat32);
  const auto prompt_length = static_cast<int32_t>(kPrompt.size());
  session.prefill(0, kPrompt.data(), prompt_length, nullptr);
  for (int round = 0; round < 3; ++round) {
    const int32_t length = session.length(0);
    // The first token after position length + 2 that has not come since the root.
    size_t end = static_cast<size_t>(length) + 3;
    while (std::count(truth.begin() + length + 1, truth.begin() + end, truth[end]) > 0) ++end;
    session.set_end_tokens(0, {kVocab + round, truth[end]});
    while (session.root(0) != truth[end] || session.length(0) < static_cast<int32_t>(end)) {
      step(session, truth, 6);
    }
    EXPECT_EQ(static_cast<int32_t>(end), session.length(0));
    EXPECT_EQ(truth[end], session.emitted(0).back());
    EXPECT_EQ(session.emitted(0).size(), session.accepted_path(0).size());
    EXPECT_EQ(std::vector<int32_t>(truth.begin(), truth.begin() + end), session.text(0));
  }
}

// A recording is of a bucket and of the kinds of sampling: seeds, temperatures and end tokens are
// data, which changes from step to step.
TEST(SessionReplay, OneRecordingForEachBucketAndKindOfSampling) {
  Session session(make_tiny_model({}, make_backend()), 1, 200, 40, DType::kFloat32);
  session.prefill(0, kPrompt.data(), static_cast<int32_t>(kPrompt.size()), nullptr);
  for (int round = 0; round < 3; ++round) {
    for (int32_t num_nodes : {1, 2, 3, 4, 5, 8, 20}) step(session, {}, 0, num_nodes - 1);
  }
  EXPECT_EQ(4u, session.num_recorded_steps());  // 1, 4, 8, 32
  size_t num_kinds = 0;
  for (const SamplingRule& rule :
       {SamplingRule{0.5f}, {0.5f, 0.9f}, {0.7f, 1, 0, true}, {0.7f, 1, 30, true}}) {
    session.set_sampling(0, rule, 1);
    for (int round = 0; round < 2; ++round) step(session, {}, 0);
    EXPECT_EQ(4u + ++num_kinds, session.num_recorded_steps());
    for (int round = 1; round < 3; ++round) {
      SamplingRule other = rule;
      other.temperature += 0.1f * static_cast<float>(round);
      session.set_sampling(0, other, 5);
      session.set_end_tokens(0, {round, 7});
      step(session, {}, 0);
    }
    EXPECT_EQ(4u + num_kinds, session.num_recorded_steps());
  }
  session.set_end_tokens(0, std::vector<int32_t>(9, 7));
  step(session, {}, 0);
  EXPECT_EQ(0u, session.num_recorded_steps()) << "the table of end tokens had to grow";
}

// Greedy, sampled and typical sequences share recorded steps, and change places half-way.
TEST(SessionReplay, EverySequenceHasItsOwnOptions) {
  if (is_sanitized() && !soak()) return;
  const auto texts = [](const std::shared_ptr<Model>& model, size_t* num_recorded) {
    Session session(model, kBatch, 200, 8, DType::kFloat32);
    const Rules rules = {SamplingRule{0}, {0.8f, 0.9f}, {1.1f, 1, 20, true}};
    for (int32_t b = 0; b < kBatch; ++b) {
      session.prefill(b, kPrompt.data(), static_cast<int32_t>(kPrompt.size()) - b, nullptr);
    }
    for (int step = 0; step < 24; ++step) {
      for (int32_t b = 0; b < kBatch && step % 4 == 0; ++b) {
        const auto place = static_cast<size_t>(b + step / 4) % kBatch;
        session.set_sampling(b, rules[place], static_cast<uint64_t>(step));
        session.set_end_tokens(b, {b + step});
      }
      session.begin_step();
      session.draft_lookup({7, 3, 1, 3});
      session.verify();
      session.accept();
      session.compact();
    }
    *num_recorded = session.num_recorded_steps();
    return Texts{session.text(0), session.text(1), session.text(2)};
  };
  size_t num_recorded = 0;
  const Texts expected = texts(make_tiny_model({}), &num_recorded);
  EXPECT_EQ(expected, texts(make_tiny_model({}, make_backend()), &num_recorded));
  EXPECT_GE(num_recorded, 1u);
  EXPECT_LE(num_recorded, 3u);  // the buckets 1, 4 and 8
}

// A step with a piece of a prompt runs as it is, the heads' drafts of other sequences included; the
// recorded steps before and after it stay.
TEST(SessionReplay, PromptsAreFedBesideDraftsOfTheHeads) {
  const auto texts = [](const std::shared_ptr<Model>& model, size_t* num_recorded) {
    const std::shared_ptr<Heads> heads = make_tiny_heads(model, true, 1, kFloat32Weights);
    const TokenTree tree({-1, 0, 0, 1}, {0, 0, 1, 0});
    Session session(model, 2, 100, 8, DType::kFloat32);
    session.prefill(0, kPrompt.data(), static_cast<int32_t>(kPrompt.size()), nullptr);
    session.set_active({0});
    for (int step = 0; step < 12; ++step) {
      if (step == 4) session.set_active({0, 1});
      session.begin_step();
      session.add_node(0, 0, 7);
      session.draft_heads(heads, tree);
      if (step == 4) session.feed(1, {kPrompt.begin(), kPrompt.begin() + 6}, false);
      if (step == 5) session.feed(1, {kPrompt.begin() + 6, kPrompt.end()}, true);
      session.verify();
      session.accept();
      session.compact();
      EXPECT_EQ(step == 4, session.emitted(1).empty() && step >= 4);
    }
    *num_recorded = session.num_recorded_steps();
    return Texts{session.text(0), session.text(1)};
  };
  size_t num_recorded = 0;
  const Texts expected = texts(make_tiny_model({}), &num_recorded);
  EXPECT_EQ(expected, texts(make_tiny_model({}, make_backend()), &num_recorded));
  EXPECT_EQ(2u, num_recorded);  // of one sequence and of two
}

// Sessions with room for more nodes than the largest bucket are not replayed; their results arrive
// through the ring all the same.
TEST(SessionReplay, LargerTreesRunAsTheyAre) {
  const std::vector<int32_t> truth =
      decode(make_tiny_model({}), sampling_at(0, false), plain(9))[0];
  Session session(make_tiny_model({}, make_backend()), 1, 100, 300, DType::kFloat32);
  session.prefill(0, kPrompt.data(), static_cast<int32_t>(kPrompt.size()), nullptr);
  while (session.length(0) < static_cast<int32_t>(truth.size())) {
    step(session, truth, std::min(3, static_cast<int32_t>(truth.size()) - session.length(0) - 1));
  }
  EXPECT_EQ(truth, session.text(0));
  EXPECT_EQ(0u, session.num_recorded_steps());
}

}  // namespace
}  // namespace medusa::cuda::testing
