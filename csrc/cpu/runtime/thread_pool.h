// A persistent pool of threads for regions of microseconds: a caller and its workers meet at
// spinning barriers, and workers that find nothing to do go to sleep.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <type_traits>

namespace medusa::cpu {

/// Threads 1 … n-1 belong to the pool, thread 0 is whoever calls. One caller at a time; regions do
/// not nest. A function that throws on a worker ends the process: kernels do not fail.
class ThreadPool {
 public:
  /// Throws std::invalid_argument unless 1 <= num_threads <= kMaxThreads.
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  static constexpr int kMaxThreads = 256;

  int num_threads() const { return num_threads_; }

  /// Takes effect at once; cheap when nothing changes. Throws like the constructor.
  void set_num_threads(int num_threads);

  /// Calls f(thread_index, num_threads) once on every thread and returns when all have returned.
  template <typename F>
  void parallel(F&& f) {
    using Function = std::remove_reference_t<F>;
    if (num_threads_ == 1) {
      f(0, 1);
      return;
    }
    run([](void* function, int index,
           int count) { (*static_cast<Function*>(function))(index, count); },
        const_cast<void*>(static_cast<const void*>(std::addressof(f))));
  }

  /// Calls f(begin, end, thread_index) on pieces of at most `grain` indices that cover 0 … count-1.
  /// A thread walks its own contiguous share in ascending order, then takes pieces off the end of
  /// the others' shares: which thread computes a piece varies, so a piece's result must not.
  template <typename F>
  void parallel_for(int64_t count, int64_t grain, F&& f) {
    const int64_t num_pieces = (count + grain - 1) / grain;
    if (num_threads_ == 1 || num_pieces <= 1) {
      for (int64_t i = 0; i < count; i += grain) f(i, std::min(i + grain, count), 0);
      return;
    }
    share(num_pieces);
    parallel([&](int index, int num_threads) {
      for (int victim = 0; victim < num_threads; ++victim) {
        const int owner =
            index + victim < num_threads ? index + victim : index + victim - num_threads;
        for (;;) {
          const int64_t piece = victim == 0 ? take_front(owner) : take_back(owner);
          if (piece < 0) break;
          f(piece * grain, std::min((piece + 1) * grain, count), index);
        }
      }
    });
  }

 private:
  using Body = void (*)(void* function, int index, int count);
  struct State;  // what the workers see

  void run(Body body, void* function);
  void start();
  void stop();
  void share(int64_t num_pieces);
  int64_t take_front(int owner);
  int64_t take_back(int owner);

  int num_threads_;
  int fork_generation_ = 0;
  std::unique_ptr<State> state_;  // null until the first region with more than one thread
};

}  // namespace medusa::cpu
