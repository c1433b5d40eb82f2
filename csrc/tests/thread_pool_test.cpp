#include "cpu/runtime/thread_pool.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <numeric>
#include <stdexcept>
#include <thread>
#include <vector>

#include "cpu/runtime/context.h"

namespace medusa::cpu {
namespace {

TEST(ThreadPool, RunsOnceOnEveryThread) {
  for (const int n : {1, 2, 3, 7}) {
    ThreadPool pool(n);
    std::vector<std::atomic<int>> calls(n);
    for (int round = 0; round < 100; ++round) {
      pool.parallel([&](int index, int count) {
        EXPECT_EQ(count, n);
        ++calls[index];
      });
    }
    for (const auto& c : calls) EXPECT_EQ(c.load(), 100) << n << " threads";
  }
}

TEST(ThreadPool, ParallelForCoversEveryIndexOnce) {
  for (const int n : {1, 2, 3}) {
    ThreadPool pool(n);
    for (const int64_t count : {0, 1, 2, 31, 1000}) {
      for (const int64_t grain : {1, 3, 64, 5000}) {
        std::vector<std::atomic<int>> calls(count);
        pool.parallel_for(count, grain, [&](int64_t begin, int64_t end, int thread) {
          EXPECT_TRUE(begin % grain == 0 && end - begin <= grain && end <= count);
          EXPECT_TRUE(thread >= 0 && thread < n);
          for (int64_t i = begin; i < end; ++i) ++calls[i];
        });
        for (const auto& c : calls) EXPECT_EQ(c.load(), 1);
      }
    }
  }
}

TEST(ThreadPool, AnIdleThreadTakesWorkFromABusyOne) {
  ThreadPool pool(2);
  std::vector<int> thread_of(8, -1);
  std::atomic<int> first{-1}, finished{0};
  pool.parallel_for(8, 1, [&](int64_t piece, int64_t, int thread) {
    thread_of[piece] = thread;
    int nobody = -1;
    // Whoever comes first is held up until all other pieces are done.
    if (first.compare_exchange_strong(nobody, static_cast<int>(piece))) {
      while (finished < 7) std::this_thread::yield();
    }
    ++finished;
  });
  for (int i = 0; i < 8; ++i) {
    EXPECT_TRUE(i == first || thread_of[i] != thread_of[first]) << "piece " << i;
  }
}

TEST(ThreadPool, WakesThreadsThatWentToSleep) {
  ThreadPool pool(2);
  for (int round = 0; round < 20; ++round) {
    std::atomic<int> calls{0};
    pool.parallel([&](int, int) { ++calls; });
    EXPECT_EQ(calls.load(), 2);
    std::this_thread::sleep_for(std::chrono::milliseconds(round % 4));
  }
}

TEST(ThreadPool, IdleWorkersUseNoProcessorTime) {
  ThreadPool pool(3);
  pool.parallel([](int, int) {});
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const std::clock_t before = std::clock();  // of all threads
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  const double busy = static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC;
  EXPECT_LT(busy, 0.05);
}

TEST(ThreadPool, ChangesItsSize) {
  ThreadPool pool(1);
  for (const int n : {3, 1, 2, 2, 4}) {
    pool.set_num_threads(n);
    EXPECT_EQ(pool.num_threads(), n);
    std::atomic<int> calls{0};
    pool.parallel([&](int, int) { ++calls; });
    EXPECT_EQ(calls.load(), n);
  }
}

TEST(ThreadPool, RefusesImpossibleSizes) {
  EXPECT_THROW(ThreadPool(0), std::invalid_argument);
  EXPECT_THROW(ThreadPool(ThreadPool::kMaxThreads + 1), std::invalid_argument);
  ThreadPool pool(2);
  EXPECT_THROW(pool.set_num_threads(-1), std::invalid_argument);
  EXPECT_EQ(pool.num_threads(), 2);
}

TEST(ThreadPool, SurvivesFork) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "ThreadSanitizer does not support threads started after a fork";
#endif
  ThreadPool pool(3);
  pool.parallel([](int, int) {});
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    alarm(20);  // a child that waits for threads it does not have must not hang the test
    std::atomic<int> calls{0};
    pool.parallel([&](int, int) { ++calls; });
    pool.set_num_threads(2);
    pool.parallel([&](int, int) { ++calls; });
    _exit(calls == 5 ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  std::atomic<int> calls{0};
  pool.parallel([&](int, int) { ++calls; });
  EXPECT_EQ(calls.load(), 3);
}

TEST(ThreadPool, PoolsInSeveralThreadsDoNotInterfere) {
  std::vector<std::thread> sessions;
  std::vector<int64_t> sums(4);
  for (int s = 0; s < 4; ++s) {
    sessions.emplace_back([s, &sums] {
      CpuContext context(2);
      for (int round = 0; round < 200; ++round) {
        std::atomic<int64_t> sum{0};
        context.parallel_for(100, 7, [&](int64_t begin, int64_t end, int) {
          for (int64_t i = begin; i < end; ++i) sum += i * (s + 1);
        });
        sums[s] += sum;
      }
    });
  }
  for (std::thread& session : sessions) session.join();
  for (int s = 0; s < 4; ++s) EXPECT_EQ(sums[s], int64_t{4950} * 200 * (s + 1));
}

TEST(CpuContext, ScratchIsAlignedAndPerThread) {
  CpuContext context(2);
  for (const int64_t count : {1, 1000, 10}) {
    float* first = context.scratch<float>(0, count);
    float* second = context.scratch<float>(1, count);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(first) % 64, 0u);
    EXPECT_NE(first, second);
    std::fill(first, first + count, 1.0f);
    std::fill(second, second + count, 2.0f);
    EXPECT_EQ(std::accumulate(first, first + count, 0.0f), static_cast<float>(count));
  }
  context.set_num_threads(3);
  EXPECT_NE(context.scratch<char>(2, 1), nullptr);
}

}  // namespace
}  // namespace medusa::cpu
