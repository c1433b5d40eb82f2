#include "engine/step_tree.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <vector>

namespace medusa {
namespace {

TEST(StepTreeTest, MergesEqualSiblings) {
  StepTree tree;
  tree.reset(7, 10, 5);
  const int32_t a = tree.add(0, 1);
  EXPECT_EQ(tree.add(0, 1), a);
  const int32_t b = tree.add(0, 2);
  EXPECT_NE(a, b);
  EXPECT_NE(tree.add(a, 1), tree.add(b, 1));
  EXPECT_EQ(tree.tokens(), (std::vector<int32_t>{7, 1, 2, 1, 1}));
  EXPECT_EQ(tree.depths(), (std::vector<int32_t>{0, 1, 1, 2, 2}));
  EXPECT_EQ(tree.child(0, 2), b);
  EXPECT_EQ(tree.child(0, 3), -1);
}

TEST(StepTreeTest, KeepsItsLimits) {
  StepTree tree;
  tree.reset(0, 3, 1);
  EXPECT_EQ(tree.add(0, 1), 1);
  EXPECT_EQ(tree.add(1, 1), -1) << "deeper than max_depth";
  EXPECT_EQ(tree.add(0, 2), 2);
  EXPECT_EQ(tree.add(0, 3), -1) << "more than max_nodes";
  EXPECT_EQ(tree.add(0, 2), 2) << "an existing node needs no room";
  EXPECT_THROW(tree.add(3, 1), std::invalid_argument);
  EXPECT_THROW(tree.add(-1, 1), std::invalid_argument);
}

}  // namespace
}  // namespace medusa
