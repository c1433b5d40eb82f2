#include "core/profiled_table.h"

#include <chrono>
#include <mutex>
#include <stdexcept>
#include <tuple>
#include <utility>

namespace medusa {
namespace {

constexpr std::tuple kEntries = {
    std::pair{"embed", &KernelTable::embed},
    std::pair{"rms_norm", &KernelTable::rms_norm},
    std::pair{"quantize", &KernelTable::quantize},
    std::pair{"linear", &KernelTable::linear},
    std::pair{"rope_append", &KernelTable::rope_append},
    std::pair{"tree_attention", &KernelTable::tree_attention},
    std::pair{"argmax", &KernelTable::argmax},
    std::pair{"sample", &KernelTable::sample},
    std::pair{"candidates", &KernelTable::candidates},
    std::pair{"accept", &KernelTable::accept},
    std::pair{"accept_typical", &KernelTable::accept_typical},
    std::pair{"publish", &KernelTable::publish},
    std::pair{"compact", &KernelTable::compact},
    std::pair{"tree_rows", &KernelTable::tree_rows},
    std::pair{"gather_hidden", &KernelTable::gather_hidden},
    std::pair{"head_inputs", &KernelTable::head_inputs},
    std::pair{"merge_drafts", &KernelTable::merge_drafts},
};
static_assert(std::tuple_size_v<decltype(kEntries)> == kNumKernels);

/// A process has few tables: an instruction set's and a device's; tests use several.
constexpr size_t kMaxTables = 8;

// An entry is a plain function: it is compiled with the number of the table that it calls.
std::array<const KernelTable*, kMaxTables> originals{};

template <size_t kTable, size_t kKernel, typename Params>
void timed(Context& context, const Params& params) {
  const auto kernel = originals[kTable]->*std::get<kKernel>(kEntries).second;
  if (context.times == nullptr) return kernel(context, params);
  const auto start = std::chrono::steady_clock::now();
  kernel(context, params);
  context.times->synchronize(context);
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
  context.times->seconds[kKernel] += taken.count();
}

template <size_t kTable, size_t kKernel>
void replace(KernelTable& table) {
  auto& kernel = table.*std::get<kKernel>(kEntries).second;
  if (kernel != nullptr) kernel = timed<kTable, kKernel>;
}

template <size_t kTable, size_t... kKernels>
KernelTable make_table(std::index_sequence<kKernels...>) {
  KernelTable table = *originals[kTable];
  (replace<kTable, kKernels>(table), ...);
  return table;
}

template <size_t kTable>
const KernelTable& table_of() {
  static const KernelTable table = make_table<kTable>(std::make_index_sequence<kNumKernels>());
  return table;
}

template <size_t... kTables>
const KernelTable& table_at(size_t number, std::index_sequence<kTables...>) {
  constexpr std::array tables = {table_of<kTables>...};
  return tables[number]();
}

template <size_t... kKernels>
const char* name_at(size_t kernel, std::index_sequence<kKernels...>) {
  constexpr std::array names = {std::get<kKernels>(kEntries).first...};
  return names[kernel];
}

}  // namespace

const char* kernel_name(size_t kernel) {
  return name_at(kernel, std::make_index_sequence<kNumKernels>());
}

const KernelTable& profiled_table(const KernelTable& original) {
  static std::mutex mutex;
  const std::lock_guard<std::mutex> lock(mutex);
  for (size_t i = 0; i < kMaxTables; ++i) {
    if (originals[i] == nullptr) originals[i] = &original;
    if (originals[i] == &original) return table_at(i, std::make_index_sequence<kMaxTables>());
  }
  throw std::logic_error("profiled_table: too many kernel tables");
}

}  // namespace medusa
