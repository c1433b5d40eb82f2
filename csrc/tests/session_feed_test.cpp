// Sequences that share steps, each with its own options and prompts fed in pieces: the bits of each
// alone.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "engine/session.h"
#include "tests/kernels_under_test.h"
#include "tests/plain_decoding.h"
#include "tests/tiny_model.h"

namespace medusa {
namespace {

using testing::greedy;
using testing::kPrompt;
using testing::make_tiny_model;
using testing::node_logits;
using testing::sampled;
using testing::Sampling;
using testing::step;
using testing::TinyOptions;

constexpr LookupOptions kLookup = {8, 3, 1, 3};

struct Request {
  std::vector<int32_t> prompt;
  Sampling sampling;
  int32_t first_step;
  int32_t piece;  // tokens that a step feeds
  int32_t num_tokens;
};

struct Outcome {
  std::vector<float> hidden;  // [prompt, H]
  std::vector<int32_t> tokens;
  std::vector<std::vector<float>> logits;  // of every token
};

std::vector<int32_t> prompt_of(int32_t count) {
  std::vector<int32_t> prompt;
  for (int32_t i = 0; i < count; ++i) prompt.push_back(i * i * 37 % 101);
  return prompt;
}

std::vector<Request> requests() {
  const Sampling typical = {{1.1f, 0.95f, 0, true}, 5};
  return {{kPrompt, greedy(), 0, 11, 30},
          {prompt_of(150), sampled(3), 1, 47, 25},
          {prompt_of(300), typical, 2, 300, 25},
          {prompt_of(90), greedy(), 3, 1, 8},
          {{42}, sampled(4), 3, 5, 20}};
}

void configure(Session& session, int32_t b, const Request& request) {
  session.keep_logits(b, true);
  session.set_sampling(b, request.sampling.rule, request.sampling.seed);
}

void take_step(Session& session, int32_t b, Outcome& outcome) {
  for (int32_t node : session.accepted_path(b)) {
    outcome.logits.push_back(node_logits(session, b, node));
  }
  outcome.tokens.insert(outcome.tokens.end(), session.emitted(b).begin(), session.emitted(b).end());
}

Outcome run_alone(const std::shared_ptr<Model>& model, const Request& request) {
  Session session(model, 1, 400, 12, DType::kBFloat16);
  configure(session, 0, request);
  Outcome outcome;
  const auto count = static_cast<int32_t>(request.prompt.size());
  session.prefill(0, request.prompt.data(), count, &outcome.hidden);
  take_step(session, 0, outcome);
  while (static_cast<int32_t>(outcome.tokens.size()) < request.num_tokens) {
    session.begin_step();
    session.draft_lookup(kLookup);
    step(session);
    take_step(session, 0, outcome);
  }
  return outcome;
}

/// Feeds the next piece of a prompt; the tokens it had.
size_t feed_piece(Session& session, int32_t b, const Request& request) {
  const auto begin = request.prompt.begin() + session.length(b);
  const auto end =
      request.prompt.end() - begin > request.piece ? begin + request.piece : request.prompt.end();
  session.feed(b, {begin, end}, end == request.prompt.end());
  return static_cast<size_t>(end - begin);
}

std::vector<Outcome> run_together(const std::shared_ptr<Model>& model,
                                  const std::vector<Request>& requests, int num_threads) {
  const auto batch = static_cast<int32_t>(requests.size());
  Session session(model, batch, 400, 12, DType::kBFloat16);
  session.set_num_threads(num_threads);
  for (int32_t b = 0; b < batch; ++b) configure(session, b, requests[b]);
  std::vector<Outcome> outcomes(requests.size());
  for (int32_t i = 0;; ++i) {
    std::vector<int32_t> active;
    for (int32_t b = 0; b < batch; ++b) {
      const bool is_done =
          static_cast<int32_t>(outcomes[b].tokens.size()) >= requests[b].num_tokens;
      if (i >= requests[b].first_step && !is_done) active.push_back(b);
    }
    if (active.empty()) return outcomes;
    session.set_active(active);
    session.begin_step();
    std::vector<size_t> num_fed(requests.size());
    for (int32_t b : active) {
      if (session.root(b) < 0) num_fed[b] = feed_piece(session, b, requests[b]);
    }
    session.draft_lookup(kLookup);
    step(session);
    for (int32_t b : active) {
      if (num_fed[b] > 0) {
        std::vector<float>& hidden = outcomes[b].hidden;
        const size_t before = hidden.size();
        EXPECT_EQ(session.num_path_rows(b), static_cast<int32_t>(num_fed[b]));
        hidden.resize(before + num_fed[b] * model->config().hidden_size);
        session.copy_path_hidden(b, hidden.data() + before);
      }
      take_step(session, b, outcomes[b]);
    }
  }
}

class SessionFeedTest : public ::testing::TestWithParam<std::tuple<WeightFormat, std::string>> {};

TEST_P(SessionFeedTest, SequencesTogetherGiveTheBitsOfEachAlone) {
  TinyOptions options;
  std::tie(options.format, options.isa) = GetParam();
  options.sliding_window = 40;
  const std::shared_ptr<Model> model = make_tiny_model(options);
  const std::vector<Request> all = requests();
  std::vector<Outcome> alone;
  for (const Request& request : all) alone.push_back(run_alone(model, request));
  for (int num_threads : {1, 2}) {
    const std::vector<Outcome> together = run_together(model, all, num_threads);
    for (size_t b = 0; b < all.size(); ++b) {
      EXPECT_EQ(together[b].tokens, alone[b].tokens) << b;
      EXPECT_EQ(together[b].hidden, alone[b].hidden) << b;
      EXPECT_EQ(together[b].logits, alone[b].logits) << b;
    }
  }
}

std::vector<std::tuple<WeightFormat, std::string>> variants() {
  std::vector<std::tuple<WeightFormat, std::string>> variants;
  for (const std::string& isa : isas_under_test()) {
    for (const WeightFormat& format : {kFloat32Weights, kBFloat16Weights, kInt8Weights}) {
      variants.emplace_back(format, isa);
    }
  }
  return variants;
}

// Where the machine lacks what MEDUSA_ISA names.
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(SessionFeedTest);
INSTANTIATE_TEST_SUITE_P(Formats, SessionFeedTest, ::testing::ValuesIn(variants()),
                         [](const auto& info) {
                           return std::string(weight_format_name(std::get<0>(info.param))) + "_" +
                                  std::get<1>(info.param);
                         });

// Forwards of more rows than any before get room.
TEST(SessionFeed, ManyPromptsInOneStep) {
  const std::shared_ptr<Model> model = make_tiny_model({});
  std::vector<Request> all(4, {prompt_of(350), greedy(), 0, 350, 3});
  const Outcome alone = run_alone(model, all[0]);
  for (const Outcome& outcome : run_together(model, all, 2)) {
    EXPECT_EQ(outcome.tokens, alone.tokens);
    EXPECT_EQ(outcome.hidden, alone.hidden);
  }
}

TEST(SessionFeed, APieceThatIsNotTheLastDecidesNothing) {
  const std::shared_ptr<Model> model = make_tiny_model({});
  Session session(model, 1, 40, 4, DType::kFloat32);
  session.keep_logits(0, true);
  session.begin_step();
  session.feed(0, {1, 2, 3}, false);
  EXPECT_EQ(session.draft_lookup(kLookup), 0);
  step(session);
  EXPECT_EQ(session.length(0), 3);
  EXPECT_EQ(session.root(0), -1);
  EXPECT_TRUE(session.emitted(0).empty());
  EXPECT_TRUE(session.accepted_path(0).empty());
  EXPECT_EQ(session.num_path_rows(0), 3);
  EXPECT_THROW(node_logits(session, 0, 0), std::logic_error);
  session.begin_step();
  session.feed(0, {4}, true);
  step(session);
  EXPECT_EQ(session.text(0), (std::vector<int32_t>{1, 2, 3, 4}));
  EXPECT_EQ(session.emitted(0), std::vector<int32_t>{session.root(0)});
  EXPECT_EQ(session.accepted_path(0), std::vector<int32_t>{0});
}

TEST(SessionFeed, BadInputIsRefusedAndChangesNothing) {
  const std::shared_ptr<Model> model = make_tiny_model({});
  Session session(model, 2, 12, 4, DType::kFloat32);
  const int32_t root = session.prefill(0, kPrompt.data(), 5, nullptr);
  EXPECT_THROW(session.feed(0, {1}, true), std::logic_error);
  session.set_active({0});
  session.begin_step();
  EXPECT_THROW(session.feed(1, {1}, true), std::invalid_argument);
  EXPECT_THROW(session.feed(2, {1}, true), std::invalid_argument);
  EXPECT_THROW(session.feed(0, {}, true), std::invalid_argument);
  EXPECT_THROW(session.feed(0, {1, 101}, true), std::invalid_argument);
  EXPECT_THROW(session.feed(0, std::vector<int32_t>(8, 1), true), std::invalid_argument);
  session.feed(0, {1}, true);
  EXPECT_THROW(session.feed(0, {1}, true), std::invalid_argument);
  EXPECT_THROW(session.set_tree(0, {root}, {-1}), std::invalid_argument);
  EXPECT_EQ(session.add_node(0, 0, 5), -1);
  session.begin_step();  // the step before is given up
  EXPECT_EQ(session.root(0), root);
  step(session);
  EXPECT_EQ(session.length(0), 6);
}

}  // namespace
}  // namespace medusa
