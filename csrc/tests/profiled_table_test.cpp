// Kernels timed by a table around them.
#include "core/profiled_table.h"

#include <gtest/gtest.h>

#include <string>

namespace medusa {
namespace {

int calls = 0;

KernelTable counting_table() {
  KernelTable table{};
  table.name = "counting";
  table.embed = [](Context&, const EmbedParams& params) { calls += params.num_rows; };
  return table;
}

const KernelTable kTable = counting_table();

TEST(ProfiledTable, CallsTheKernelAndKeepsTheRestOfTheTable) {
  const KernelTable& profiled = profiled_table(kTable);
  EXPECT_EQ(&profiled, &profiled_table(kTable));
  EXPECT_STREQ(profiled.name, "counting");
  EXPECT_EQ(profiled.linear, nullptr);
  Context context;
  EmbedParams params;
  params.num_rows = 3;
  calls = 0;
  profiled.embed(context, params);
  EXPECT_EQ(calls, 3);
}

TEST(ProfiledTable, BooksTimeOnContextsThatKeepTimes) {
  Context context;
  KernelTimes times;
  int waits = 0;
  times.synchronize = [&](Context&) { ++waits; };
  const KernelTable& profiled = profiled_table(kTable);
  profiled.embed(context, EmbedParams());
  EXPECT_EQ(waits, 0);
  context.times = &times;
  profiled.embed(context, EmbedParams());
  EXPECT_EQ(waits, 1);
  for (size_t i = 0; i < kNumKernels; ++i) {
    EXPECT_EQ(times.seconds[i] > 0, std::string(kernel_name(i)) == "embed") << kernel_name(i);
  }
}

TEST(ProfiledTable, TellsTablesApart) {
  static KernelTable other = counting_table();
  other.name = "other";
  EXPECT_STREQ(profiled_table(other).name, "other");
  EXPECT_STREQ(profiled_table(kTable).name, "counting");
}

}  // namespace
}  // namespace medusa
