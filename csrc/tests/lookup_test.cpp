#include "engine/lookup.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace medusa {
namespace {

NGramIndex index_of(const std::vector<int32_t>& text, int32_t min_ngram, int32_t max_ngram) {
  NGramIndex index(min_ngram, max_ngram);
  for (int32_t token : text) index.append(token);
  return index;
}

std::vector<int32_t> matches(const NGramIndex& index, int32_t max_matches) {
  std::vector<int32_t> positions;
  index.matches(max_matches, &positions);
  return positions;
}

/// The same by comparing every position.
std::vector<int32_t> slow_matches(const std::vector<int32_t>& text, int32_t min_ngram,
                                  int32_t max_ngram, size_t max_matches) {
  std::vector<int32_t> positions;
  const int32_t end = static_cast<int32_t>(text.size());
  for (int32_t n = max_ngram; n >= min_ngram; --n) {
    for (int32_t p = end - 1; p >= n; --p) {
      if (positions.size() == max_matches) return positions;
      if (!std::equal(text.end() - n, text.end(), text.begin() + p - n)) continue;
      bool is_new = true;
      for (int32_t other : positions) {
        is_new = is_new && text[static_cast<size_t>(other)] != text[static_cast<size_t>(p)];
      }
      if (is_new) positions.push_back(p);
    }
  }
  return positions;
}

TEST(NGramIndexTest, PrefersLongThenLateMatchesWithNewTokens) {
  const NGramIndex index = index_of({1, 2, 3, 9, 2, 3, 8, 4, 3, 7, 1, 2, 3}, 1, 3);
  // (1 2 3) then 9; (2 3) then 8; (3) then 7.
  EXPECT_EQ(matches(index, 4), (std::vector<int32_t>{3, 6, 9}));
  EXPECT_EQ(matches(index, 2), (std::vector<int32_t>{3, 6}));
}

TEST(NGramIndexTest, ContinuationBehindTheEndRepeats) {
  const NGramIndex index = index_of({5, 6, 7, 5, 6}, 2, 2);
  ASSERT_EQ(matches(index, 1), (std::vector<int32_t>{2}));
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < 7; ++i) tokens.push_back(index.continuation(2, i));
  EXPECT_EQ(tokens, (std::vector<int32_t>{7, 5, 6, 7, 5, 6, 7}));
}

TEST(NGramIndexTest, NothingMatchesInShortText) {
  EXPECT_TRUE(matches(index_of({4}, 1, 3), 4).empty());
  EXPECT_TRUE(matches(index_of({4, 5, 6}, 2, 3), 4).empty());
}

TEST(NGramIndexTest, EqualsASlowSearchUnderAppendsAndTruncations) {
  std::mt19937 random(3);
  NGramIndex index(1, 4);
  std::vector<int32_t> text;
  for (int round = 0; round < 3000; ++round) {
    if (random() % 10 == 0) {
      text.resize(random() % (text.size() + 1));
      index.truncate(static_cast<int32_t>(text.size()));
    } else {
      text.push_back(static_cast<int32_t>(random() % 4));
      index.append(text.back());
    }
    ASSERT_EQ(index.text(), text);
    if (text.size() > 60) {
      text.clear();
      index.truncate(0);
    }
    if (text.empty()) continue;
    ASSERT_EQ(matches(index, 3), slow_matches(text, 1, 4, 3)) << round;
  }
}

TEST(NGramIndexTest, RefusesBadRanges) {
  EXPECT_THROW(NGramIndex(0, 3), std::invalid_argument);
  EXPECT_THROW(NGramIndex(4, 3), std::invalid_argument);
  EXPECT_THROW(NGramIndex(1, 17), std::invalid_argument);
}

}  // namespace
}  // namespace medusa
