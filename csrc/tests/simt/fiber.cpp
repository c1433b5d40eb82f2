#include "fiber.h"

#include <pthread.h>

#include <cstdint>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#else
#define __sanitizer_start_switch_fiber(fake_stack, bottom, size) ((void)0)
#define __sanitizer_finish_switch_fiber(fake_stack, bottom, size) ((void)0)
#endif

#ifndef SIMT_UCONTEXT
// Saves the callee-saved registers on the old stack and takes them from the new one.
extern "C" void simt_switch_stack(void** save, void* load);
asm(R"(
.text
.type simt_switch_stack, @function
simt_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size simt_switch_stack, .-simt_switch_stack
)");
#endif

namespace simt {
namespace {

void switch_stacks(Fiber& from, Fiber& to) {
#ifdef SIMT_UCONTEXT
  swapcontext(&from.context, &to.context);
#else
  simt_switch_stack(&from.stack_pointer, to.stack_pointer);
#endif
}

}  // namespace

void fiber_prepare(Fiber& fiber, char* stack, size_t size, void (*entry)()) {
  fiber.stack_bottom = stack;
  fiber.stack_size = size;
  fiber.fake_stack = nullptr;
#ifdef SIMT_UCONTEXT
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = stack;
  fiber.context.uc_stack.ss_size = size;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, entry, 0);
#else
  // Six registers, the address that `ret` takes, and a null return address for unwinders.
  auto* top = reinterpret_cast<void**>(reinterpret_cast<uintptr_t>(stack + size) & ~uintptr_t{15});
  void** frame = top - 8;
  for (int i = 0; i < 6; ++i) frame[i] = nullptr;
  frame[6] = reinterpret_cast<void*>(entry);
  frame[7] = nullptr;
  fiber.stack_pointer = frame;
#endif
}

void fiber_adopt_thread(Fiber& fiber) {
  pthread_attr_t attributes;
  void* bottom = nullptr;
  pthread_getattr_np(pthread_self(), &attributes);
  pthread_attr_getstack(&attributes, &bottom, &fiber.stack_size);
  pthread_attr_destroy(&attributes);
  fiber.stack_bottom = bottom;
}

void fiber_switch(Fiber& from, Fiber& to) {
  __sanitizer_start_switch_fiber(&from.fake_stack, to.stack_bottom, to.stack_size);
  switch_stacks(from, to);
  __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
}

void fiber_leave(Fiber& from, Fiber& to) {
  __sanitizer_start_switch_fiber(nullptr, to.stack_bottom, to.stack_size);
  switch_stacks(from, to);
  __builtin_unreachable();
}

void fiber_entered() { __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr); }

}  // namespace simt
