// Runs a grid: block after block, one fiber per thread, in an order the seed gives.
#include "engine.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <numeric>
#include <vector>

#include "cuda_runtime.h"
#include "fiber.h"
#include "internal.h"
#include "simt.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)0)
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)0)
#endif

SIMT_FAST_THREAD_LOCAL uint3 threadIdx, blockIdx;
SIMT_FAST_THREAD_LOCAL dim3 blockDim, gridDim;

namespace simt {
SIMT_FAST_THREAD_LOCAL int lane;
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kStackBytes = 256 * 1024;
#else
constexpr size_t kStackBytes = 64 * 1024;
#endif
constexpr size_t kGuardBytes = 4096;
constexpr size_t kStackPoisonBytes = 4096;
constexpr int kMaxWarps = kMaxThreads / kWarpSize;

struct Wait {
  const char* name;
  Site site;
  unsigned mask;
  Combine combine;
  void* args;
};

struct Thread {
  Fiber fiber;
  uint3 index;
  Wait wait;
};

struct Warp {
  unsigned ready, waiting, gone;  // lanes: may run; sleep in a collective; do not exist or returned
  unsigned claimed;               // lanes named by the masks of the collectives under way
  int rank;                       // place in the order of warps
  int rotation;                   // lane that begins the order of lanes
  bool descending;
};

bool same_site(const Site& a, const Site& b) {
  return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0);
}

struct Engine {
  Fiber host;
  Thread threads[kMaxThreads];
  char* stacks;
  // The launch.
  LaunchShape shape;
  void (*entry)(void*);
  void* context;
  KernelInfo kernel;
  // The block.
  Warp warps[kMaxWarps];
  int warp_of_rank[kMaxWarps];
  uint32_t ready_ranks;
  int current = -1;
  int num_threads, num_warps, num_live, num_in_barrier, num_true, barrier_result;
  Wait barrier;
  uint64_t random_state;
  bool uniform;  // a new random choice at each switch, not only at each barrier

  Engine();
  ~Engine() { munmap(stacks, kMaxThreads * kStackBytes); }
  uint64_t random();
  void draw_order(bool in_order);
  void set_ready(int warp, unsigned lanes);
  void set_asleep(int thread);
  int pick();
  void enter(int thread);
  void sleep();
  [[noreturn]] void fail_stuck();
  void complete_barrier();
  void check_barrier_complete();
  void begin_block(uint64_t block);
  void run_block(uint64_t block);
};

thread_local std::unique_ptr<Engine> t_owner;
SIMT_FAST_THREAD_LOCAL Engine* t_engine = nullptr;

Engine::Engine() {
  void* memory = mmap(nullptr, kMaxThreads * kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  stacks = static_cast<char*>(memory);
  for (int i = 0; i < kMaxThreads; ++i) mprotect(stacks + i * kStackBytes, kGuardBytes, PROT_NONE);
  fiber_adopt_thread(host);
}

uint64_t Engine::random() {  // splitmix64
  uint64_t z = random_state += 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

// The first warp in the order that can run, runs: so one warp gets as far ahead of another as
// barriers allow, which shows a missing one. A new order is drawn at each barrier.
void Engine::draw_order(bool in_order) {
  std::iota(warp_of_rank, warp_of_rank + num_warps, 0);
  for (int i = num_warps - 1; i > 0 && !in_order; --i) {
    std::swap(warp_of_rank[i], warp_of_rank[random() % static_cast<unsigned>(i + 1)]);
  }
  ready_ranks = 0;
  for (int rank = 0; rank < num_warps; ++rank) {
    Warp& warp = warps[warp_of_rank[rank]];
    const uint64_t bits = in_order ? 0 : random();
    warp.rank = rank;
    warp.rotation = bits & 31;
    warp.descending = (bits >> 5 & 1) != 0;
    if (warp.ready != 0) ready_ranks |= 1u << rank;
  }
}

void Engine::set_ready(int warp, unsigned lanes) {
  warps[warp].ready |= lanes;
  ready_ranks |= 1u << warps[warp].rank;
}

void Engine::set_asleep(int thread) {
  Warp& warp = warps[thread / kWarpSize];
  warp.ready &= ~(1u << thread % kWarpSize);
  if (warp.ready == 0) ready_ranks &= ~(1u << warp.rank);
}

int Engine::pick() {
  if (ready_ranks == 0) fail_stuck();
  uint32_t ranks = ready_ranks;
  const uint64_t bits = uniform ? random() : 0;
  for (auto skip = bits % static_cast<unsigned>(__builtin_popcount(ranks)); skip > 0; --skip) {
    ranks &= ranks - 1;
  }
  const int w = warp_of_rank[__builtin_ctz(ranks)];
  Warp& warp = warps[w];
  if (uniform) warp.rotation = bits >> 32 & 31;
  const uint64_t twice = warp.ready * 0x100000001u;
  const auto rotated = static_cast<unsigned>(twice >> warp.rotation);
  const int first = warp.descending ? 31 - __builtin_clz(rotated) : __builtin_ctz(rotated);
  return w * kWarpSize + ((first + warp.rotation) & 31);
}

void Engine::enter(int thread) {
  current = thread;
  lane = thread % kWarpSize;
  threadIdx = threads[thread].index;
}

// Runs others until the current thread is ready and its turn comes.
void Engine::sleep() {
  const int from = current, to = pick();
  if (to == from) return;
  enter(to);
  fiber_switch(threads[from].fiber, threads[to].fiber);
}

// The text is in a plain array: a fiber that fails never unwinds.
void Engine::fail_stuck() {
  char text[1536];
  int length = std::snprintf(text, sizeof text, "no thread can go on: %d of %d have returned",
                             num_threads - num_live, num_threads);
  const auto append = [&](const char* format, auto... values) {
    const auto left = static_cast<int>(sizeof text) - length;
    if (left > 1) length += std::min(std::snprintf(text + length, left, format, values...), left);
  };
  if (num_in_barrier > 0) {
    append("; %d wait in %s at %s:%d", num_in_barrier, barrier.name, barrier.site.file,
           barrier.site.line);
  }
  for (int w = 0; w < num_warps; ++w) {
    for (unsigned lanes = warps[w].waiting; lanes != 0;) {
      const Wait& wait = threads[w * kWarpSize + __builtin_ctz(lanes)].wait;
      append("\n    warp %d, lanes %08x: wait for lanes %08x in %s at %s:%d", w, lanes & wait.mask,
             wait.mask, wait.name, wait.site.file, wait.site.line);
      lanes &= ~wait.mask;
    }
  }
  fail("%s", text);
}

void Engine::complete_barrier() {
  barrier_result = num_true;
  num_in_barrier = num_true = 0;
  for (int w = 0; w < num_warps; ++w) warps[w].ready = ~warps[w].gone;
  draw_order(options().seed == 0);
  race::on_block_barrier();
}

// A barrier that completes only because threads have returned is nearly always a bug.
void Engine::check_barrier_complete() {
  if (num_in_barrier != num_live || num_live == num_threads || num_live == 0) return;
  fail("%s at %s:%d: %d threads wait, the other %d of the block have returned", barrier.name,
       barrier.site.file, barrier.site.line, num_in_barrier, num_threads - num_live);
}

void run_thread() {
  fiber_entered();
  t_engine->entry(t_engine->context);
  async_end_thread();

  Engine& engine = *t_engine;
  const int thread = engine.current;
  Warp& warp = engine.warps[thread / kWarpSize];
  const unsigned bit = 1u << thread % kWarpSize;
  if ((warp.claimed & bit) != 0) {
    const Wait& wait =
        engine.threads[thread / kWarpSize * kWarpSize + __builtin_ctz(warp.waiting)].wait;
    fail("%s at %s:%d: its mask %08x names lane %d, which has returned", wait.name, wait.site.file,
         wait.site.line, wait.mask, thread % kWarpSize);
  }
  warp.gone |= bit;
  engine.set_asleep(thread);
  --engine.num_live;
  engine.check_barrier_complete();
  if (engine.num_live == 0) leave_block();
  const int next = engine.pick();
  engine.enter(next);
  fiber_leave(engine.threads[thread].fiber, engine.threads[next].fiber);
}

void Engine::begin_block(uint64_t block) {
  const dim3 grid = shape.grid, size = shape.block;
  blockIdx = {static_cast<unsigned>(block % grid.x), static_cast<unsigned>(block / grid.x % grid.y),
              static_cast<unsigned>(block / grid.x / grid.y)};
  random_state = options().seed * 0xD1342543DE82EF95u + block;
  uniform = options().seed % 4 == 3;
  num_live = num_threads;
  num_in_barrier = num_true = 0;
  for (int w = 0; w < num_warps; ++w) {
    const int lanes = std::min(num_threads - w * kWarpSize, kWarpSize);
    warps[w] = {};
    warps[w].ready = kFullMask >> (kWarpSize - lanes);
    warps[w].gone = ~warps[w].ready;
  }
  draw_order(options().seed == 0);
  for (int i = 0; i < num_threads; ++i) {
    const auto linear = static_cast<unsigned>(i);
    threads[i].index = {linear % size.x, linear / size.x % size.y, linear / size.x / size.y};
    char* stack = stacks + i * kStackBytes + kGuardBytes;
    // Equal stack tops would fall into the same cache sets.
    const size_t bytes = kStackBytes - kGuardBytes - static_cast<size_t>(i % 64) * 192;
    ASAN_UNPOISON_MEMORY_REGION(stack, bytes);  // an abandoned fiber leaves its redzones there
    std::memset(stack + bytes - kStackPoisonBytes, options().poison, kStackPoisonBytes);
    fiber_prepare(threads[i].fiber, stack, bytes, run_thread);
  }
}

void Engine::run_block(uint64_t block) {
  begin_block(block);
  if (kernel.shared_bytes > 0) std::memset(kernel.shared, options().poison, kernel.shared_bytes);
  for ([[maybe_unused]] char* area : kernel.dynamic) {
    ASAN_POISON_MEMORY_REGION(area + shape.shared_bytes, kDynamicAreaBytes - shape.shared_bytes);
  }
  async_begin_block();
  race::begin_block(kernel.shared, kernel.shared_bytes);
  set_watchdog(options().watchdog_seconds);

  const int first = pick();
  enter(first);
  fiber_switch(host, threads[first].fiber);
  current = -1;

  race::end_block();
  for (char* area : kernel.dynamic) {
    char *begin = area + shape.shared_bytes, *end = area + kDynamicAreaBytes;
    ASAN_UNPOISON_MEMORY_REGION(begin, end - begin);
    const auto poison = static_cast<char>(options().poison);
    if (*begin == poison && std::memcmp(begin, begin + 1, end - begin - 1) == 0) continue;
    const char* touched = std::find_if(begin, end, [&](char byte) { return byte != poison; });
    record_fault(cudaErrorLaunchFailure,
                 "dynamic shared memory: byte %td was written, the launch asked for %zu",
                 touched - area, shape.shared_bytes);
  }
}

}  // namespace

int running_thread() { return t_engine ? t_engine->current : -1; }

void leave_block() {
  Engine& engine = *t_engine;
  fiber_leave(engine.threads[engine.current].fiber, engine.host);
}

void print_position(char* text, size_t size) {
  text[0] = '\0';
  if (!t_engine || t_engine->num_threads == 0) return;
  const int length =
      std::snprintf(text, size, "block (%u, %u, %u): ", blockIdx.x, blockIdx.y, blockIdx.z);
  if (t_engine->current < 0) return;
  std::snprintf(text + length - 2, size - length, " thread (%u, %u, %u): ", threadIdx.x,
                threadIdx.y, threadIdx.z);
}

bool in_shared(const void* address, size_t bytes) {
  const KernelInfo& kernel = t_engine->kernel;
  const auto* begin = static_cast<const char*>(address);
  if (begin < kernel.shared || begin + bytes > kernel.shared + kernel.shared_bytes) return false;
  return std::none_of(kernel.dynamic.begin(), kernel.dynamic.end(), [&](const char* area) {
    return begin < area + kDynamicAreaBytes && begin + bytes > area + t_engine->shape.shared_bytes;
  });
}

void collective(const char* name, unsigned mask, Combine combine, void* args, Site site,
                const void* pc) {
  Engine& engine = *t_engine;
  const int first_thread = engine.current - lane;
  Warp& warp = engine.warps[engine.current / kWarpSize];
  const unsigned bit = 1u << lane;
  engine.threads[engine.current].wait = {name, site, mask, combine, args};

  const unsigned partners = mask & warp.waiting;
  const Wait* other = nullptr;
  if (partners != 0) {
    other = &engine.threads[first_thread + __builtin_ctz(partners)].wait;
    if (other->mask == mask && other->combine == combine && same_site(other->site, site)) {
      other = nullptr;
    }
  } else if ((mask & warp.claimed) != 0) {
    other = &engine.threads[first_thread + __builtin_ctz(warp.waiting)].wait;
  }
  if (other != nullptr || (mask & bit) == 0 || (mask & warp.gone) != 0) {
    blame("called from", pc);
    if (other != nullptr) {
      fail(
          "divergent collectives: %s at %s:%d with mask %08x, other lanes wait in %s at %s:%d "
          "with mask %08x",
          name, site.file, site.line, mask, other->name, other->site.file, other->site.line,
          other->mask);
    }
    if ((mask & bit) == 0) {
      fail("%s at %s:%d: the mask %08x lacks the calling lane %d", name, site.file, site.line, mask,
           lane);
    }
    fail("%s at %s:%d: the mask %08x names lanes %08x, which do not exist or have returned", name,
         site.file, site.line, mask, mask & warp.gone);
  }

  warp.claimed |= mask;
  if (((warp.waiting | bit) & mask) != mask) {
    warp.waiting |= bit;
    engine.set_asleep(engine.current);
    engine.sleep();
    return;
  }
  void* all_args[kWarpSize];
  for (unsigned lanes = mask; lanes != 0; lanes &= lanes - 1) {
    const int i = __builtin_ctz(lanes);
    all_args[i] = engine.threads[first_thread + i].wait.args;
  }
  combine(all_args, mask);
  warp.waiting &= ~mask;
  warp.claimed &= ~mask;
  engine.set_ready(first_thread / kWarpSize, mask);
  if (engine.uniform) engine.sleep();
}

int block_barrier(const char* name, bool predicate, Site site) {
  Engine& engine = *t_engine;
  const Wait wait = {name, site, 0, nullptr, nullptr};
  if (engine.num_in_barrier == 0) engine.barrier = wait;
  if (!same_site(site, engine.barrier.site)) {
    fail("divergent barriers: %s at %s:%d, other threads wait in %s at %s:%d", wait.name, site.file,
         site.line, engine.barrier.name, engine.barrier.site.file, engine.barrier.site.line);
  }
  ++engine.num_in_barrier;
  engine.num_true += predicate ? 1 : 0;
  engine.check_barrier_complete();
  if (engine.num_in_barrier == engine.num_threads) {
    engine.complete_barrier();
  } else {
    engine.set_asleep(engine.current);
  }
  engine.sleep();
  return engine.barrier_result;
}

int launch(const LaunchShape& shape, const void* kernel, void (*entry)(void*), void* context) {
  if (t_engine == nullptr) {
    t_owner = std::make_unique<Engine>();
    t_engine = t_owner.get();
  }
  Engine& engine = *t_engine;
  begin_faults();
  engine.num_threads = 0;
  engine.kernel = find_kernel(kernel);
  const int error = check_launch(shape, engine.kernel);
  if (error != cudaSuccess) return end_faults(kernel), error;

  engine.shape = shape;
  engine.entry = entry;
  engine.context = context;
  engine.num_threads = static_cast<int>(shape.block.x * shape.block.y * shape.block.z);
  engine.num_warps = (engine.num_threads + kWarpSize - 1) / kWarpSize;
  blockDim = shape.block;
  gridDim = shape.grid;
  const uint64_t num_blocks = uint64_t{shape.grid.x} * shape.grid.y * shape.grid.z;
  std::vector<uint64_t> order(num_blocks);
  std::iota(order.begin(), order.end(), 0);
  if (options().seed != 0) {
    engine.random_state = options().seed;
    for (size_t i = order.size() - 1; i > 0; --i) {
      std::swap(order[i], order[engine.random() % (i + 1)]);
    }
  }
  for (const uint64_t block : order) {
    engine.run_block(block);
    if (fault() != cudaSuccess) break;
  }
  return end_faults(kernel);
}

}  // namespace simt
