// Sequences that share the pages of a cache: the bits of each alone, and the room that each needs.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "core/errors.h"
#include "engine/session.h"
#include "tests/kernels_under_test.h"
#include "tests/plain_decoding.h"
#include "tests/tiny_model.h"

namespace medusa {
namespace {

using testing::make_tiny_model;
using testing::node_logits;
using testing::step;
using testing::TinyOptions;

using Text = std::vector<int32_t>;

constexpr int32_t kMaxLength = 700;
constexpr int32_t kMaxNodes = 4;
constexpr int32_t kPagesPerSlot = 3;  // for kMaxLength + kMaxNodes rows

std::shared_ptr<Model> tiny_model(int32_t sliding_window = 0) {
  TinyOptions options;
  options.format = kInt8Weights;
  options.isa = isas_under_test().front();
  options.sliding_window = sliding_window;
  return make_tiny_model(options);
}

int64_t memory_of(const Model& model, DType dtype, int32_t num_pages) {
  return num_pages * KvCacheStorage::page_bytes(model.config(), dtype);
}

Text text_of(int32_t count, int32_t seed) {
  Text text;
  for (int32_t i = 0; i < count; ++i) text.push_back((i * i * 37 + seed) % 101);
  return text;
}

void prefill(Session& session, int32_t b, const Text& rest) {
  session.prefill(b, rest.data(), static_cast<int32_t>(rest.size()), nullptr);
}

/// Begins, and feeds what is not there; returns the rows that were.
int32_t start(Session& session, int32_t b, const Text& text, int32_t max_tokens = 0) {
  const int32_t reused = session.begin(b, text, max_tokens);
  prefill(session, b, {text.begin() + reused, text.end()});
  return reused;
}

/// Some steps over trees of random tokens: what was emitted, and the logits of every node.
struct Outcome {
  Text tokens;
  std::vector<float> logits;

  bool operator==(const Outcome& other) const {
    return tokens == other.tokens && logits == other.logits;
  }
};

Outcome decode(Session& session, int32_t b, int32_t num_steps) {
  Outcome outcome;
  std::mt19937 random(3);
  session.set_active({b});
  session.keep_logits(b, true);
  for (int32_t i = 0; i < num_steps; ++i) {
    session.begin_step();
    for (int32_t node = 0; node < 3; ++node) {
      session.add_node(b, static_cast<int32_t>(random() % (node + 1)),
                       static_cast<int32_t>(random() % 101));
    }
    session.verify();
    for (int32_t node = 0; node < session.tree(b).num_nodes(); ++node) {
      const std::vector<float> row = node_logits(session, b, node);
      outcome.logits.insert(outcome.logits.end(), row.begin(), row.end());
    }
    session.accept();
    session.compact();
    const Text& emitted = session.emitted(b);
    outcome.tokens.insert(outcome.tokens.end(), emitted.begin(), emitted.end());
  }
  return outcome;
}

Outcome decode_alone(const std::shared_ptr<Model>& model, DType dtype, const Text& text,
                     int32_t num_steps) {
  Session session(model, 1, kMaxLength, kMaxNodes, dtype);
  prefill(session, 0, text);
  return decode(session, 0, num_steps);
}

class SessionCacheOf : public ::testing::TestWithParam<DType> {};

// Texts that begin alike, in random order, in slots that are freed, truncated or begun anew: each
// is decoded as if it were alone.
TEST_P(SessionCacheOf, ReusedRowsHaveTheBitsOfAFreshPrefill) {
  const std::shared_ptr<Model> model = tiny_model(GetParam() == DType::kFloat32 ? 300 : 0);
  Session session(model, 3, kMaxLength, kMaxNodes, GetParam(),
                  memory_of(*model, GetParam(), 2 * kPagesPerSlot + 1));
  std::mt19937 random(5);
  std::vector<Text> texts = {text_of(600, 0), text_of(300, 1)};
  int32_t num_begun = 0;
  for (int32_t i = 0; i < 40; ++i) {
    const auto b = static_cast<int32_t>(random() % 3);
    Text text = texts[random() % texts.size()];
    text.resize(1 + random() % text.size());
    text.push_back(static_cast<int32_t>(random() % 101));
    session.free(b);
    if (!session.can_begin(text, 0)) continue;
    ++num_begun;
    start(session, b, text);
    EXPECT_EQ(decode(session, b, 6), decode_alone(model, GetParam(), text, 6)) << "text " << i;
    if (random() % 3 == 0) {  // the page that it goes on in may be another text's, too
      text.resize(1 + random() % text.size());
      session.truncate(b, static_cast<int32_t>(text.size()) - 1, -1);
      prefill(session, b, {text.back()});
      EXPECT_EQ(decode(session, b, 2), decode_alone(model, GetParam(), text, 2)) << "text " << i;
    }
    if (texts.size() < 6) texts.push_back(session.text(b));
  }
  const CacheStats stats = session.cache_stats();
  EXPECT_EQ(stats.begins, num_begun);
  EXPECT_GT(num_begun, 15);
  EXPECT_GT(stats.hits, num_begun / 2);
  EXPECT_GT(stats.rows_reused, 100 * stats.hits);
}

INSTANTIATE_TEST_SUITE_P(Types, SessionCacheOf,
                         ::testing::Values(DType::kFloat32, DType::kBFloat16, DType::kFloat16,
                                           DType::kInt8));

TEST(SessionCache, StartsFromRunningAndFinishedTextsToTheToken) {
  const std::shared_ptr<Model> model = tiny_model();
  Session session(model, 2, kMaxLength, kMaxNodes, DType::kFloat32);
  const Text known = text_of(600, 0);
  EXPECT_EQ(start(session, 0, known), 0);
  for (const bool is_running : {true, false}) {
    if (!is_running) session.free(0);
    for (int32_t common : {1, 255, 256, 257, 512, 599}) {
      Text text(known.begin(), known.begin() + common);
      text.push_back((known[common] + 1) % 101);
      EXPECT_EQ(session.begin(1, text, 0), common);
      EXPECT_EQ(session.text(1), Text(text.begin(), text.end() - 1));
    }
    // Of a text that is there, all but the token whose output comes next.
    EXPECT_EQ(session.begin(1, known, 0), 599);
    session.free(1);
  }
  const CacheStats stats = session.cache_stats();
  EXPECT_EQ(stats.begins, 15);
  EXPECT_EQ(stats.hits, 14);
  EXPECT_EQ(stats.rows_reused, 2 * (1 + 255 + 256 + 257 + 512 + 599 + 599));
}

TEST(SessionCache, TextsThatBeginAlikeShareTheirFullPages) {
  const std::shared_ptr<Model> model = tiny_model();
  Session session(model, 4, kMaxLength, kMaxNodes, DType::kFloat32);
  const Text text = text_of(520, 0);
  const auto num_used = [&] {
    const CacheStats stats = session.cache_stats();
    return stats.num_pages - stats.num_free - stats.num_idle;
  };
  for (int32_t b = 0; b < 4; ++b) {
    start(session, b, text);
    EXPECT_EQ(num_used(), 3 + b);
  }
  for (int32_t b = 0; b < 4; ++b) session.free(b);
  EXPECT_EQ(num_used(), 0);
  // The same tokens take no room twice.
  EXPECT_EQ(session.cache_stats().num_idle, 3);
}

TEST(SessionCache, ASequenceOwnsThePagesItNeeds) {
  const std::shared_ptr<Model> model = tiny_model();
  Session session(model, 3, kMaxLength, kMaxNodes, DType::kFloat32);
  EXPECT_EQ(session.cache_stats().num_free, 3 * kPagesPerSlot);
  prefill(session, 0, text_of(600, 0));
  prefill(session, 1, text_of(20, 0));
  EXPECT_EQ(session.cache_stats().num_free, 3 * kPagesPerSlot - 3 - 1);
  prefill(session, 2, text_of(253, 0));
  EXPECT_EQ(session.cache_stats().num_free, 3 * kPagesPerSlot - 3 - 1 - 1);
  decode(session, 2, 3);
  EXPECT_EQ(session.cache_stats().num_free, 3 * kPagesPerSlot - 3 - 1 - 2);
  session.truncate(0, 100, -1);
  EXPECT_EQ(session.cache_stats().num_free, 3 * kPagesPerSlot - 1 - 1 - 2);
}

TEST(SessionCache, AContinuedTextGoesOnInItsLastPage) {
  const std::shared_ptr<Model> model = tiny_model();
  Session session(model, 2, kMaxLength, kMaxNodes, DType::kFloat32);
  Text text = text_of(300, 0);
  for (int32_t turn = 0; turn < 4; ++turn) {
    EXPECT_EQ(start(session, turn % 2, text), turn == 0 ? 0 : 300 + 40 * (turn - 1));
    EXPECT_EQ(decode(session, turn % 2, 3), decode_alone(model, DType::kFloat32, text, 3));
    session.truncate(turn % 2, static_cast<int32_t>(text.size()), -1);
    session.free(turn % 2);
    EXPECT_EQ(session.cache_stats().num_idle, 2);
    const Text more = text_of(40, turn);
    text.insert(text.end(), more.begin(), more.end());
  }
}

// A cache for one long text and a short one: what would not fit has to wait, and what has begun
// runs to its end.
TEST(SessionCache, AFullCacheMakesNewTextsWait) {
  const std::shared_ptr<Model> model = tiny_model();
  Session session(model, 3, kMaxLength, kMaxNodes, DType::kFloat32,
                  memory_of(*model, DType::kFloat32, kPagesPerSlot + 1));
  const Text first = text_of(100, 0), second = text_of(100, 1), third = text_of(100, 2);
  EXPECT_TRUE(session.can_begin(first, 0));
  start(session, 0, first);
  EXPECT_FALSE(session.can_begin(second, 0));
  EXPECT_FALSE(session.can_begin(second, 253));
  EXPECT_TRUE(session.can_begin(second, 252));
  start(session, 1, second, 252);
  EXPECT_FALSE(session.can_begin(third, 101));
  EXPECT_THROW(session.begin(2, third, 101), OutOfMemory);
  // Without a promise there is nothing to take either.
  EXPECT_THROW(prefill(session, 2, third), OutOfMemory);
  while (session.length(0) < kMaxLength - 2) decode(session, 0, 1);
  decode(session, 1, 10);
  session.free(1);
  EXPECT_TRUE(session.can_begin(third, 101));
  EXPECT_EQ(start(session, 2, third, 101), 0);
  EXPECT_EQ(decode(session, 2, 3), decode_alone(model, DType::kFloat32, third, 3));
}

TEST(SessionCache, RowsNotUsedForTheLongestTimeGoFirst) {
  const std::shared_ptr<Model> model = tiny_model();
  Session session(model, 2, kMaxLength, kMaxNodes, DType::kFloat32,
                  memory_of(*model, DType::kFloat32, 2 * kPagesPerSlot));
  std::vector<Text> texts;
  for (int32_t i = 0; i < 5; ++i) texts.push_back(text_of(100, i));
  for (int32_t i : {0, 1, 2, 3, 4, 1, 0}) {  // 2 is now the oldest, then 3
    start(session, 0, texts[i], 150);
    session.free(0);
  }
  start(session, 0, text_of(600, 50), 650);  // one page was free, two must go
  session.truncate(0, 0, -1);
  const auto reused = [&](int32_t i) {
    const int32_t rows = session.begin(1, texts[i], 150);
    session.truncate(1, 0, -1);
    return rows;
  };
  for (int32_t i : {4, 1, 0}) EXPECT_EQ(reused(i), 99) << i;
  for (int32_t i : {2, 3}) EXPECT_EQ(reused(i), 0) << i;
}

// A text that needs the whole cache may have to give up the page that it would have begun from.
TEST(SessionCache, AnEmptyCacheHasRoomForTheLongestText) {
  const std::shared_ptr<Model> model = tiny_model();
  Session session(model, 2, kMaxLength, kMaxNodes, DType::kFloat32,
                  memory_of(*model, DType::kFloat32, kPagesPerSlot));
  const Text text = text_of(300, 0);
  start(session, 0, text);
  session.free(0);
  ASSERT_TRUE(session.can_begin(text, 0));
  EXPECT_EQ(start(session, 1, text), 256);
  EXPECT_EQ(decode(session, 1, 3), decode_alone(model, DType::kFloat32, text, 3));
}

TEST(SessionCache, RefusesWhatCannotBe) {
  const std::shared_ptr<Model> model = tiny_model();
  const int64_t least = memory_of(*model, DType::kFloat32, kPagesPerSlot);
  EXPECT_THROW(Session(model, 1, kMaxLength, kMaxNodes, DType::kFloat32, least - 1),
               std::invalid_argument);
  Session session(model, 1, kMaxLength, kMaxNodes, DType::kFloat32, least);
  EXPECT_THROW(session.begin(0, {}, 0), std::invalid_argument);
  EXPECT_THROW(session.begin(0, {101}, 0), std::invalid_argument);
  EXPECT_THROW(session.begin(1, {1}, 0), std::invalid_argument);
  EXPECT_THROW(session.begin(0, text_of(20, 0), 19), std::invalid_argument);
  EXPECT_THROW(session.begin(0, text_of(kMaxLength + 1, 0), 0), std::invalid_argument);
  EXPECT_THROW(session.can_begin({1}, kMaxLength + 1), std::invalid_argument);
}

}  // namespace
}  // namespace medusa
