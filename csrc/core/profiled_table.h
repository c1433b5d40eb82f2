// Where a session's time goes, kernel by kernel: a kernel table that times another's entries.
#pragma once

#include <array>
#include <cstddef>
#include <functional>

#include "core/kernel_table.h"

namespace medusa {

/// The entries that work on a context, numbered in the table's order.
inline constexpr size_t kNumKernels = 17;
const char* kernel_name(size_t kernel);

/// What the kernels of one context have taken.
struct KernelTimes {
  /// Waits for a context's kernels: a device is still at work when a call has returned.
  std::function<void(Context&)> synchronize;
  std::array<double, kNumKernels> seconds{};
};

/// The table whose entries do what `original`'s do, and book their time on contexts that keep
/// times (`Context::times`). `original` must live as long as the process.
const KernelTable& profiled_table(const KernelTable& original);

}  // namespace medusa
