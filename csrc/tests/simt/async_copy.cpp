// cp.async: the destination is poisoned at the issue and written at the wait, so that both a read
// too early and an overwrite too early show.
#include <cstring>
#include <vector>

#include "internal.h"
#include "simt.h"

namespace simt {
namespace {

struct Copy {
  char* to;
  char data[16];
  int group;  // number of groups committed before it
  const void* pc;
};

struct Queue {
  std::vector<Copy> copies;
  int num_committed = 0;
};
thread_local std::vector<Queue> t_queues;

}  // namespace

void async_begin_block() {
  t_queues.resize(kMaxThreads);
  for (Queue& queue : t_queues) {
    queue.copies.clear();
    queue.num_committed = 0;
  }
}

void async_end_thread() {
  const Queue& queue = t_queues[running_thread()];
  if (queue.copies.empty()) return;
  blame("cp.async", queue.copies.front().pc);
  fail("the thread returns with %zu cp.async not waited for", queue.copies.size());
}

void copy_async(void* shared, const void* global, int source_bytes) {
  const void* pc = SIMT_CALLER;
  check_shared("cp.async", shared, 16, pc);
  if (reinterpret_cast<uintptr_t>(global) % 16 != 0) {
    blame("cp.async", pc);
    fail("cp.async: the source %p is not aligned to 16 bytes", global);
  }
  race::access(race::Access::kAsyncIssue, shared, 16, pc);
  Queue& queue = t_queues[running_thread()];
  Copy copy = {static_cast<char*>(shared), {}, queue.num_committed, pc};
  std::memcpy(copy.data, global, static_cast<size_t>(source_bytes));
  std::memset(shared, options().poison, 16);
  queue.copies.push_back(copy);
}

void commit_async() { ++t_queues[running_thread()].num_committed; }

void wait_async(int pending_groups) {
  Queue& queue = t_queues[running_thread()];
  size_t num_left = 0;
  for (const Copy& copy : queue.copies) {
    if (copy.group < queue.num_committed - pending_groups) {
      race::access(race::Access::kAsyncLand, copy.to, 16, copy.pc);
      std::memcpy(copy.to, copy.data, 16);
    } else {
      queue.copies[num_left++] = copy;
    }
  }
  queue.copies.resize(num_left);
}

void check_shared(const char* name, const void* address, size_t bytes, const void* pc) {
  if (!in_shared(address, bytes)) {
    blame(name, pc);
    fail("%s: %p is not in the shared memory that the launch asked for", name, address);
  }
  if (reinterpret_cast<uintptr_t>(address) % 16 != 0) {
    blame(name, pc);
    fail("%s: %p is not aligned to 16 bytes", name, address);
  }
}

}  // namespace simt
