// A stack one can switch to: hand-written on x86-64, ucontext elsewhere.
#pragma once

#include <cstddef>

#if !defined(__x86_64__) && !defined(SIMT_UCONTEXT)
#define SIMT_UCONTEXT 1
#endif
#ifdef SIMT_UCONTEXT
#include <ucontext.h>
#endif

namespace simt {

struct Fiber {
#ifdef SIMT_UCONTEXT
  ucontext_t context;
#else
  void* stack_pointer;
#endif
  // For AddressSanitizer, which must be told of each switch.
  const void* stack_bottom;
  size_t stack_size;
  void* fake_stack;
};

// Makes `fiber` run `entry` on the given stack when first switched to. `entry` begins with
// fiber_entered() and never returns.
void fiber_prepare(Fiber& fiber, char* stack, size_t size, void (*entry)());
// Makes `fiber` stand for the calling OS thread's own stack.
void fiber_adopt_thread(Fiber& fiber);
void fiber_switch(Fiber& from, Fiber& to);
// As fiber_switch, from a fiber that will not run again.
[[noreturn]] void fiber_leave(Fiber& from, Fiber& to);
void fiber_entered();

}  // namespace simt
