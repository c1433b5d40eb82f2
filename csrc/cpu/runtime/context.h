// Where CPU kernels run: a thread pool and the threads' scratch memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>
#include <vector>

#include "core/kernel_table.h"
#include "cpu/runtime/thread_pool.h"

namespace medusa::cpu {

/// One per session: contexts share nothing, so sessions in several threads do not interfere.
class CpuContext : public Context {
 public:
  explicit CpuContext(int num_threads) : pool_(num_threads), scratch_(num_threads) {}

  int num_threads() const { return pool_.num_threads(); }

  void set_num_threads(int num_threads) override {
    pool_.set_num_threads(num_threads);
    if (scratch_.size() < static_cast<size_t>(num_threads)) scratch_.resize(num_threads);
  }

  /// f(thread_index, num_threads) once on every thread.
  template <typename F>
  void parallel(F&& f) {
    pool_.parallel(std::forward<F>(f));
  }

  /// f(begin, end, thread_index) on pieces of at most `grain` of the indices 0 … count-1.
  template <typename F>
  void parallel_for(int64_t count, int64_t grain, F&& f) {
    pool_.parallel_for(count, grain, std::forward<F>(f));
  }

  /// At least `bytes` bytes, 64-byte aligned, that belong to this thread until its next call; the
  /// contents are undefined. Allocates only when a thread asks for more than ever before.
  template <typename T>
  T* scratch(int thread_index, int64_t count) {
    return static_cast<T*>(scratch_[thread_index].reserve(count * int64_t{sizeof(T)}));
  }

  /// The same for the one who calls `parallel`, apart from its thread 0's: results of all threads.
  template <typename T>
  T* shared_scratch(int64_t count) {
    return static_cast<T*>(shared_scratch_.reserve(count * int64_t{sizeof(T)}));
  }

 private:
  class Scratch {
   public:
    Scratch() = default;
    Scratch(Scratch&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
    ~Scratch() { release(); }

    void* reserve(int64_t bytes) {
      if (bytes > bytes_) {
        release();
        data_ = ::operator new(static_cast<size_t>(bytes), kAlignment);
        bytes_ = bytes;
      }
      return data_;
    }

   private:
    static constexpr std::align_val_t kAlignment{64};

    void release() {
      ::operator delete(data_, kAlignment);
      data_ = nullptr;
      bytes_ = 0;
    }

    void* data_ = nullptr;
    int64_t bytes_ = 0;
  };

  ThreadPool pool_;
  std::vector<Scratch> scratch_;
  Scratch shared_scratch_;
};

/// The context every CPU kernel is given.
inline CpuContext& cpu_context(Context& context) { return static_cast<CpuContext&>(context); }

}  // namespace medusa::cpu
