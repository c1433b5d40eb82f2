// Steps that are recorded once and replayed: their tokens are those of steps that are not. The
// recording is the work itself here, run again with whatever the host's memory holds by then.
#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <vector>

#include "model/session.h"
#include "tests/tiny_model.h"

namespace medusa {
namespace {

using testing::make_tiny_heads;
using testing::make_tiny_model;
using testing::TinyOptions;

constexpr int32_t kBatch = 3;
const std::vector<int32_t> kPrompt = {5, 17, 42, 42, 9, 3, 77, 100, 0, 1, 2};

class Replay : public Graph {
 public:
  explicit Replay(std::function<void()> work) : work_(std::move(work)) {}
  void launch(Context&) override { work_(); }

 private:
  std::function<void()> work_;
};

Backend replaying_backend() {
  Backend backend = cpu::make_backend();
  backend.capture = [](Context&, const std::function<void()>& work) {
    return std::make_unique<Replay>(work);
  };
  return backend;
}

Sampling sampling_of(bool sampled, bool typical) {
  Sampling sampling;
  sampling.temperature = sampled ? 0.8f : 0.0f;
  sampling.top_p = 0.9f;
  sampling.typical = typical;
  sampling.seeds = {4, 5, 6};
  return sampling;
}

/// Trees of random sizes by the heads and at random; sequence 1 leaves half-way. All that the
/// session is asked for follows `seed` and what it answers.
std::vector<std::vector<int32_t>> decode(const std::shared_ptr<Model>& model,
                                         const Sampling& sampling, int32_t max_nodes,
                                         size_t* num_recorded) {
  const std::shared_ptr<Heads> heads = make_tiny_heads(model, true, 2, DType::kFloat32);
  const TokenTree small = TokenTree::from_paths({{0}, {1}, {0, 0}}, 3, 32);
  const TokenTree large = TokenTree::from_paths({{0}, {1}, {9}, {0, 0}, {0, 1}, {0, 0, 2}}, 3, 32);
  Session session(model, kBatch, 200, max_nodes, DType::kFloat32);
  session.set_sampling(sampling);
  for (int32_t b = 0; b < kBatch; ++b) {
    session.prefill(b, kPrompt.data(), static_cast<int32_t>(kPrompt.size()) - b, nullptr);
  }
  std::mt19937 random(1);
  std::vector<int32_t> active = {0, 1, 2};
  for (int step = 0; step < 24; ++step) {
    if (step == 12) session.set_active(active = {0, 2});
    session.begin_step();
    if (step % 4 != 3 && max_nodes > 1) session.draft_heads(heads, step % 3 ? small : large);
    for (int32_t b : active) {
      const int32_t wanted = static_cast<int32_t>(random() % static_cast<unsigned>(max_nodes));
      while (step % 5 != 4 && session.tree(b).num_nodes() < wanted) {
        const auto parent = static_cast<int32_t>(random() % session.tree(b).num_nodes());
        session.add_node(b, parent, static_cast<int32_t>(random() % 101));
      }
    }
    session.verify();
    session.accept();
    session.compact();
  }
  std::vector<std::vector<int32_t>> texts;
  for (int32_t b = 0; b < kBatch; ++b) texts.push_back(session.text(b));
  *num_recorded = session.num_recorded_steps();
  return texts;
}

TEST(SessionReplay, TokensOfStepsThatAreNotRecorded) {
  const std::shared_ptr<Model> model = make_tiny_model({});
  const std::shared_ptr<Model> replaying = make_tiny_model({}, replaying_backend());
  for (const auto& [sampled, typical] : {std::pair(false, false), {true, false}, {true, true}}) {
    for (int32_t max_nodes : {1, 7, 70}) {
      SCOPED_TRACE(::testing::Message() << sampled << typical << " N " << max_nodes);
      size_t num_recorded = 0;
      const auto expected = decode(model, sampling_of(sampled, typical), max_nodes, &num_recorded);
      EXPECT_EQ(0u, num_recorded);
      EXPECT_EQ(expected,
                decode(replaying, sampling_of(sampled, typical), max_nodes, &num_recorded));
      EXPECT_GT(num_recorded, 0u);
    }
  }
}

TEST(SessionReplay, OneRecordingForEachBucketAndSampling) {
  Session session(make_tiny_model({}, replaying_backend()), 1, 200, 40, DType::kFloat32);
  Sampling sampling;
  sampling.seeds = {1};
  session.set_sampling(sampling);
  session.prefill(0, kPrompt.data(), static_cast<int32_t>(kPrompt.size()), nullptr);
  const auto step = [&](int32_t num_nodes) {
    session.begin_step();
    while (session.tree(0).num_nodes() < num_nodes) {
      session.add_node(0, 0, session.tree(0).num_nodes());
    }
    session.verify();
    session.accept();
    session.compact();
  };
  for (int round = 0; round < 3; ++round) {
    for (int32_t num_nodes : {1, 2, 3, 4, 5, 8, 20}) step(num_nodes);
  }
  EXPECT_EQ(4u, session.num_recorded_steps());  // 1, 4, 8, 32
  sampling.seeds = {2};
  session.set_sampling(sampling);
  EXPECT_EQ(4u, session.num_recorded_steps());
  sampling.temperature = 0.5f;
  session.set_sampling(sampling);
  EXPECT_EQ(0u, session.num_recorded_steps());
}

TEST(SessionReplay, TreesBeyondTheLargestBucketRunAsTheyAre) {
  Session session(make_tiny_model({}, replaying_backend()), 1, 400, 300, DType::kFloat32);
  session.prefill(0, kPrompt.data(), static_cast<int32_t>(kPrompt.size()), nullptr);
  for (int round = 0; round < 2; ++round) {
    session.begin_step();
    for (int32_t i = 0; i < 290; ++i) {
      session.add_node(0, session.tree(0).num_nodes() - 1, i % 101);
    }
    ASSERT_GT(session.tree(0).num_nodes(), StepGraphs::kMaxNodes);
    session.verify();
    session.accept();
    session.compact();
  }
  EXPECT_EQ(0u, session.num_recorded_steps());
}

}  // namespace
}  // namespace medusa
