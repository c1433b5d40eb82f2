// The race detector: an access to shared memory is checked against earlier ones to the same byte,
// as ordered by __syncthreads (the block) and __syncwarp (the lanes of its mask) alone. Without
// SIMT_RACE all of it is empty.
#pragma once

#include <cstddef>
#include <cstdint>

namespace simt::race {

enum class Access { kRead, kWrite, kAtomic, kAsyncIssue, kAsyncLand };

#ifdef SIMT_RACE
void begin_block(char* shared, size_t bytes);
void end_block();
void on_block_barrier();
void on_warp_barrier(int warp, unsigned mask);
// `thread` touched `bytes` at `address`, from the code at `pc`.
void access(Access kind, const volatile void* address, size_t bytes, const void* pc);
#else
inline void begin_block(char*, size_t) {}
inline void end_block() {}
inline void on_block_barrier() {}
inline void on_warp_barrier(int, unsigned) {}
inline void access(Access, const volatile void*, size_t, const void*) {}
#endif

}  // namespace simt::race
