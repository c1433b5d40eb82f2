#include "engine/prefix_index.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "core/params/cache.h"

namespace medusa {
namespace {

using Text = std::vector<int32_t>;

Text text_of(int32_t count, int32_t seed) {
  Text text;
  for (int32_t i = 0; i < count; ++i) text.push_back((i * i + seed) % 50);
  return text;
}

/// Adds a text's pages from `first_page` on.
void insert(PrefixIndex& index, const Text& text, int32_t first_page) {
  int32_t parent = -1;
  for (size_t begin = 0; begin < text.size(); begin += kPageRows) {
    const auto count = static_cast<int32_t>(std::min<size_t>(text.size() - begin, kPageRows));
    parent = index.insert(parent, text.data() + begin, count, first_page++);
  }
}

PrefixIndex::Match find(const PrefixIndex& index, const Text& text) {
  return index.find(text.data(), static_cast<int32_t>(text.size()));
}

TEST(PrefixIndex, FindsTheLongestStartToTheToken) {
  PrefixIndex index(10);
  EXPECT_EQ(find(index, text_of(5, 0)).num_rows, 0);
  const Text known = text_of(600, 0);
  insert(index, known, 0);
  for (int32_t common : {0, 1, 255, 256, 257, 511, 512, 599, 600}) {
    Text text(known.begin(), known.begin() + common);
    if (common < 600) text.push_back(77);
    const PrefixIndex::Match match = find(index, text);
    EXPECT_EQ(match.num_rows, common);
    EXPECT_EQ(match.pages.size(), static_cast<size_t>((common + kPageRows - 1) / kPageRows));
    for (size_t i = 0; i < match.pages.size(); ++i) EXPECT_EQ(match.pages[i], i);
  }
}

TEST(PrefixIndex, FindsTheBestOfManyTexts) {
  std::mt19937 random(1);
  PrefixIndex index(200);
  std::vector<Text> texts;
  for (int32_t i = 0; i < 60; ++i) {
    Text text = text_of(700, 0);
    text.resize(1 + random() % 700);
    text[random() % text.size()] = static_cast<int32_t>(random() % 3);
    insert(index, text, 3 * i);
    texts.push_back(text);
  }
  for (int32_t i = 0; i < 300; ++i) {
    Text text = texts[random() % texts.size()];
    text[random() % text.size()] = static_cast<int32_t>(random() % 3);
    int32_t most = 0;
    for (const Text& known : texts) {
      const size_t shorter = std::min(known.size(), text.size());
      const auto end = std::mismatch(known.begin(), known.begin() + shorter, text.begin()).first;
      most = std::max(most, static_cast<int32_t>(end - known.begin()));
    }
    EXPECT_EQ(find(index, text).num_rows, most) << i;
  }
}

TEST(PrefixIndex, KeepsThePageThatIsKnown) {
  PrefixIndex index(10);
  const Text text = text_of(256, 0);
  EXPECT_EQ(index.insert(-1, text.data(), 256, 4), 4);
  EXPECT_EQ(index.insert(-1, text.data(), 256, 5), 4);
  EXPECT_EQ(index.insert(-1, text.data(), 255, 6), 6);
}

TEST(PrefixIndex, ErasesWhatFollowsAPage) {
  PrefixIndex index(10);
  const Text known = text_of(700, 0);
  insert(index, known, 0);
  Text other = known;
  other[300] = 99;
  insert(index, other, 5);  // shares page 0
  Text erased = index.erase(1);
  std::sort(erased.begin(), erased.end());
  EXPECT_EQ(erased, (Text{1, 2}));
  EXPECT_EQ(find(index, known).num_rows, 300);
  EXPECT_EQ(find(index, other).pages, (Text{0, 6, 7}));
  index.erase(0);
  EXPECT_EQ(find(index, other).num_rows, 0);
}

}  // namespace
}  // namespace medusa
