// What the micro-benchmarks share: threads and instruction set, memory, model sizes, counters.
#pragma once

#include <benchmark/benchmark.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "cpu/runtime/context.h"
#include "cpu/runtime/isa.h"

namespace medusa::cpu {

/// MEDUSA_NUM_THREADS, or all. Throws std::invalid_argument for what is no such number.
inline int num_threads() {
  const int all = static_cast<int>(std::thread::hardware_concurrency());
  const char* value = std::getenv("MEDUSA_NUM_THREADS");
  if (value == nullptr || *value == '\0') return all;
  char* end = nullptr;
  const long threads = std::strtol(value, &end, 10);
  if (*end != '\0' || threads < 1 || threads > all) {
    throw std::invalid_argument("MEDUSA_NUM_THREADS: needs 1 to " + std::to_string(all) +
                                " (the processors of this machine), got " + value);
  }
  return static_cast<int>(threads);
}

/// The kernels of MEDUSA_ISA, or the best this machine has.
inline const KernelTable& table() { return kernel_table(); }

/// Anonymous pages, huge where the system allows.
class Pages {
 public:
  explicit Pages(int64_t bytes) : bytes_(static_cast<size_t>(bytes) + kHugePage) {
    start_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start_ == MAP_FAILED) throw std::bad_alloc();
    madvise(start_, bytes_, MADV_HUGEPAGE);
  }
  ~Pages() { munmap(start_, bytes_); }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;

  /// The first huge page's start.
  char* data() const {
    const uintptr_t start = reinterpret_cast<uintptr_t>(start_);
    return reinterpret_cast<char*>((start + kHugePage - 1) / kHugePage * kHugePage);
  }

 private:
  static constexpr size_t kHugePage = size_t{2} << 20;
  size_t bytes_;
  void* start_;
};

struct ModelSizes {
  const char* name;
  int32_t hidden_size, num_query_heads, num_kv_heads, head_size, ffn_size, vocab_size;

  int32_t qkv_width() const { return (num_query_heads + 2 * num_kv_heads) * head_size; }
};

inline const std::vector<ModelSizes>& model_sizes() {
  static const std::vector<ModelSizes> sizes = {{"smollm2", 576, 9, 3, 64, 1536, 49152},
                                                {"llama_7b", 4096, 32, 32, 128, 11008, 32000},
                                                {"llama3_8b", 4096, 32, 8, 128, 14336, 128256}};
  return sizes;
}

/// `amount` units of 10^9 per iteration, as a rate.
inline void set_rate(benchmark::State& state, const char* name, double amount) {
  state.counters[name] =
      benchmark::Counter(amount * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

/// Real time in microseconds; of repetitions also the shortest.
template <typename F>
void register_benchmark(const std::string& title, F&& function) {
  benchmark::RegisterBenchmark(title.c_str(), std::forward<F>(function))
      ->UseRealTime()
      ->ComputeStatistics("min",
                          [](const std::vector<double>& times) {
                            return *std::min_element(times.begin(), times.end());
                          })
      ->Unit(benchmark::kMicrosecond);
}

inline int run_benchmarks(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}

}  // namespace medusa::cpu
