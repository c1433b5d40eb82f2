#include "cpu/runtime/thread_pool.h"

#include <pthread.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace medusa::cpu {
namespace {

// Two lines: adjacent ones are fetched in pairs.
constexpr size_t kLine = 128;

// A worker looks for work this long before it sleeps: longer than the pauses inside a forward,
// shorter than a pause in which another pool (torch's) does something worth a core.
constexpr auto kSpinTime = std::chrono::microseconds(200);
constexpr int kPausesPerClock = 64;

// A thread that waits longer than this many pauses gives its core away: with more threads than
// cores, the one waited for may need it.
constexpr int kPausesPerYield = 4096;

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Counts the forks this process descends from, so that a pool notices that its threads are gone.
std::atomic<int> fork_count{0};

int fork_generation() {
  static const int registered = pthread_atfork(nullptr, nullptr, [] { fork_count.fetch_add(1); });
  static_cast<void>(registered);
  return fork_count.load(std::memory_order_relaxed);
}

int checked(int num_threads) {
  if (num_threads < 1 || num_threads > ThreadPool::kMaxThreads) {
    throw std::invalid_argument("num_threads must be between 1 and " +
                                std::to_string(ThreadPool::kMaxThreads) + ", got " +
                                std::to_string(num_threads));
  }
  return num_threads;
}

uint64_t make_range(uint32_t begin, uint32_t end) { return uint64_t{begin} << 32 | end; }

}  // namespace

struct ThreadPool::State {
  struct alignas(kLine) Worker {
    std::atomic<uint32_t> done{0};   // the last region it finished
    std::atomic<uint64_t> range{0};  // pieces left of its share: begin << 32 | end
  };

  explicit State(int num_threads) : workers(num_threads) {}

  alignas(kLine) std::atomic<uint32_t> region{0};  // counts up; a new value is the start signal
  Body body = nullptr;                             // null: the workers end
  void* function = nullptr;
  int num_threads = 0;

  alignas(kLine) std::atomic<int> num_sleeping{0};
  std::mutex mutex;
  std::condition_variable wake;

  std::vector<Worker> workers;  // [0] is the caller
  std::vector<std::thread> threads;

  void work(int index) {
    for (uint32_t last = 0;;) {
      last = next_region(last);
      if (body == nullptr) return;
      body(function, index, num_threads);
      workers[index].done.store(last, std::memory_order_release);
    }
  }

  uint32_t next_region(uint32_t last) {
    const auto start = std::chrono::steady_clock::now();
    do {
      for (int i = 0; i < kPausesPerClock; ++i) {
        const uint32_t now = region.load(std::memory_order_acquire);
        if (now != last) return now;
        pause();
      }
    } while (std::chrono::steady_clock::now() - start < kSpinTime);
    // Sequentially consistent on both sides: either this thread sees the new region, or the
    // caller sees that it sleeps.
    std::unique_lock<std::mutex> lock(mutex);
    num_sleeping.fetch_add(1);
    wake.wait(lock, [&] { return region.load() != last; });
    num_sleeping.fetch_sub(1);
    return region.load(std::memory_order_acquire);
  }

  uint32_t signal() {
    const uint32_t next = region.load(std::memory_order_relaxed) + 1;
    region.store(next);
    if (num_sleeping.load() > 0) {
      {
        const std::lock_guard<std::mutex> lock(mutex);
      }
      wake.notify_all();
    }
    return next;
  }
};

ThreadPool::ThreadPool(int num_threads) : num_threads_(checked(num_threads)) {}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::set_num_threads(int num_threads) {
  if (num_threads == num_threads_) return;
  checked(num_threads);
  stop();
  num_threads_ = num_threads;
}

void ThreadPool::start() {
  const int generation = fork_generation();
  if (state_ && generation == fork_generation_) return;
  // In a forked child the threads are gone and the locks may be held by them: leave all that be.
  static_cast<void>(state_.release());
  fork_generation_ = generation;
  state_ = std::make_unique<State>(num_threads_);
  State* state = state_.get();
  state->num_threads = num_threads_;
  for (int i = 1; i < num_threads_; ++i)
    state->threads.emplace_back([state, i] { state->work(i); });
}

void ThreadPool::stop() {
  if (!state_) return;
  if (fork_generation() != fork_generation_) {
    static_cast<void>(state_.release());
    return;
  }
  state_->body = nullptr;
  state_->signal();
  for (std::thread& thread : state_->threads) thread.join();
  state_.reset();
}

void ThreadPool::run(Body body, void* function) {
  start();
  state_->body = body;
  state_->function = function;
  const uint32_t region = state_->signal();
  body(function, 0, num_threads_);
  for (int i = 1; i < num_threads_; ++i) {
    const std::atomic<uint32_t>& done = state_->workers[i].done;
    for (int pauses = 1; done.load(std::memory_order_acquire) != region; ++pauses) {
      pause();
      if (pauses % kPausesPerYield == 0) std::this_thread::yield();
    }
  }
}

void ThreadPool::share(int64_t num_pieces) {
  start();
  for (int i = 0; i < num_threads_; ++i) {
    state_->workers[i].range.store(
        make_range(static_cast<uint32_t>(num_pieces * i / num_threads_),
                   static_cast<uint32_t>(num_pieces * (i + 1) / num_threads_)),
        std::memory_order_relaxed);
  }
}

int64_t ThreadPool::take_front(int owner) {
  std::atomic<uint64_t>& range = state_->workers[owner].range;
  uint64_t old = range.load(std::memory_order_relaxed);
  for (;;) {
    const auto begin = static_cast<uint32_t>(old >> 32), end = static_cast<uint32_t>(old);
    if (begin >= end) return -1;
    if (range.compare_exchange_weak(old, make_range(begin + 1, end), std::memory_order_relaxed)) {
      return begin;
    }
  }
}

int64_t ThreadPool::take_back(int owner) {
  std::atomic<uint64_t>& range = state_->workers[owner].range;
  uint64_t old = range.load(std::memory_order_relaxed);
  for (;;) {
    const auto begin = static_cast<uint32_t>(old >> 32), end = static_cast<uint32_t>(old);
    if (begin >= end) return -1;
    if (range.compare_exchange_weak(old, make_range(begin, end - 1), std::memory_order_relaxed)) {
      return end - 1;
    }
  }
}

}  // namespace medusa::cpu
