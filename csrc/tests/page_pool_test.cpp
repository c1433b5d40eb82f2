#include "engine/page_pool.h"

#include <gtest/gtest.h>

namespace medusa {
namespace {

TEST(PagePool, PagesAreFreeReferencedOrIdle) {
  PagePool pool(3);
  EXPECT_EQ(pool.num_free(), 3);
  const int32_t a = pool.take(), b = pool.take();
  EXPECT_NE(a, b);
  pool.add_reference(a);
  pool.drop_reference(a);
  EXPECT_EQ(pool.references(a), 1);
  EXPECT_EQ(pool.num_free(), 1);
  pool.set_kept(b, true);
  pool.drop_reference(a);
  pool.drop_reference(b);
  EXPECT_EQ(pool.num_free(), 2);
  EXPECT_EQ(pool.num_idle(), 1);
  pool.add_reference(b);
  EXPECT_EQ(pool.num_idle(), 0);
  pool.drop_reference(b);
  pool.set_kept(b, false);
  EXPECT_EQ(pool.num_free(), 3);
  EXPECT_EQ(pool.num_idle(), 0);
}

TEST(PagePool, TakesPagesThatWereUsedBefore) {
  PagePool pool(5);
  pool.take();
  const int32_t used = pool.take();
  pool.drop_reference(used);
  EXPECT_EQ(pool.take(), used);
}

TEST(PagePool, KnowsTheLeastRecentlyUsedIdlePage) {
  PagePool pool(4);
  EXPECT_EQ(pool.least_recently_used(), -1);
  for (int32_t page = 0; page < 3; ++page) {
    ASSERT_EQ(pool.take(), page);
    pool.set_kept(page, true);
  }
  for (int32_t page : {1, 0, 2}) pool.drop_reference(page);
  EXPECT_EQ(pool.least_recently_used(), 1);
  pool.add_reference(1);
  EXPECT_EQ(pool.least_recently_used(), 0);
  pool.drop_reference(1);
  pool.set_kept(0, false);
  EXPECT_EQ(pool.least_recently_used(), 2);
}

}  // namespace
}  // namespace medusa
