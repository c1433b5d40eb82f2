// Faults: collecting, naming their places in the source, and the signals that reveal some.
#include <dlfcn.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include <cstdarg>
#include <cstdio>
#include <memory>
#include <mutex>

#include "cuda_runtime.h"
#include "internal.h"
#include "simt.h"

namespace simt {
namespace {

struct Blame {
  const char* label;
  const void* pc;
};

// Of one OS thread. A fiber that faults never unwinds, so it must own no memory: all text is here.
struct Faults {
  ~Faults() {
    if (has_watchdog) timer_delete(watchdog);
  }

  int error = cudaSuccess;
  char message[2048], position[160];
  Blame blames[4];
  int num_blames = 0;
  timer_t watchdog;
  bool has_watchdog = false;
  char signal_stack[64 * 1024];
};
// Not itself thread-local: a library that is loaded late has little room for that.
thread_local std::unique_ptr<Faults> t_faults;

// Signal actions belong to the process: the first launch under way takes them, the last gives back.
std::mutex g_mutex;
int g_num_launches = 0;
struct sigaction g_saved[4];

#if defined(__SANITIZE_ADDRESS__)
constexpr int kSignals[] = {SIGVTALRM};  // AddressSanitizer reports the others itself
#else
constexpr int kSignals[] = {SIGVTALRM, SIGSEGV, SIGBUS, SIGFPE};
#endif

void record(int error, const char* format, va_list args) {
  if (t_faults->error != cudaSuccess) return;  // the first counts
  t_faults->error = error;
  std::vsnprintf(t_faults->message, sizeof t_faults->message, format, args);
  print_position(t_faults->position, sizeof t_faults->position);
}

// Runs on the signal stack, or on the fiber's; leaves it like any fault.
void on_signal(int signal, siginfo_t* info, void* context) {
  if (running_thread() < 0) {  // not ours: let the fault happen again, unhandled
    if (signal != SIGVTALRM) ::signal(signal, SIG_DFL);
    return;
  }
  const auto& machine = static_cast<ucontext_t*>(context)->uc_mcontext;
#if defined(__x86_64__)
  const auto pc = static_cast<uintptr_t>(machine.gregs[REG_RIP]);
#else
  const auto pc = static_cast<uintptr_t>(machine.pc);
#endif
  blame("at", reinterpret_cast<const void*>(pc + 1));
  if (signal == SIGVTALRM) {
    record_fault(cudaErrorLaunchTimeout,
                 "watchdog: the block has run for %g s. Does it wait for another block or thread?",
                 options().watchdog_seconds);
  } else if (signal == SIGFPE) {
    record_fault(cudaErrorLaunchFailure, "integer division by zero");
  } else {
    record_fault(cudaErrorIllegalAddress, "illegal access to address %p", info->si_addr);
  }
  leave_block();
}

// "function at file:line", with the functions it was inlined into.
std::string describe(const void* pc) {
  Dl_info info;
  if (dladdr(pc, &info) == 0) return "unknown";
  const auto offset = static_cast<const char*>(pc) - static_cast<const char*>(info.dli_fbase) - 1;
  char command[1024];
  std::snprintf(command, sizeof command, "addr2line -Cfipe '%s' 0x%tx 2>/dev/null", info.dli_fname,
                offset);
  std::string text;
  if (FILE* pipe = popen(command, "r")) {
    char buffer[512];
    while (std::fgets(buffer, sizeof buffer, pipe) != nullptr) text += buffer;
    pclose(pipe);
  }
  for (size_t at; (at = text.find(" (discriminator")) != std::string::npos;) {
    text.erase(at, text.find(')', at) + 1 - at);
  }
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text.empty() ? "unknown" : text;
}

std::string kernel_name(const void* kernel) {
  const std::string text = describe(static_cast<const char*>(kernel) + 1);
  return text.substr(0, text.find(" at "));
}

std::string& report() {
  thread_local std::string text;
  return text;
}

}  // namespace

Options& options() {
  thread_local Options options;
  return options;
}

const std::string& last_report() { return report(); }

void blame(const char* label, const void* pc) {
  if (t_faults->num_blames < 4) t_faults->blames[t_faults->num_blames++] = {label, pc};
}

void fail(const char* format, ...) {
  va_list args;
  va_start(args, format);
  record(cudaErrorLaunchFailure, format, args);
  va_end(args);
  leave_block();
}

int record_fault(int error, const char* format, ...) {
  va_list args;
  va_start(args, format);
  record(error, format, args);
  va_end(args);
  return error;
}

int fault() { return t_faults->error; }

void trap() {
  blame("at", SIMT_CALLER);
  fail("__trap()");
}

void begin_faults() {
  if (!t_faults) t_faults = std::make_unique<Faults>();
  t_faults->error = cudaSuccess;
  t_faults->num_blames = 0;
  stack_t stack = {};
  if (sigaltstack(nullptr, &stack) == 0 && (stack.ss_flags & SS_DISABLE) != 0) {
    stack = {};
    stack.ss_sp = t_faults->signal_stack;
    stack.ss_size = sizeof t_faults->signal_stack;
    sigaltstack(&stack, nullptr);
  }
  struct sigaction action = {};
  action.sa_sigaction = on_signal;
  // The handler does not return, so it must neither be masked afterwards nor mask others.
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  {
    const std::lock_guard<std::mutex> lock(g_mutex);
    int i = 0;
    if (g_num_launches++ == 0) {
      for (const int signal : kSignals) sigaction(signal, &action, &g_saved[i++]);
    }
  }
  if (!t_faults->has_watchdog) {
    sigevent event = {};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = SIGVTALRM;
    event._sigev_un._tid = static_cast<pid_t>(syscall(SYS_gettid));
    t_faults->has_watchdog =
        timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &t_faults->watchdog) == 0;
  }
}

void set_watchdog(double seconds) {
  itimerspec time = {};
  time.it_value.tv_sec = static_cast<time_t>(seconds);
  time.it_value.tv_nsec =
      static_cast<long>((seconds - static_cast<double>(time.it_value.tv_sec)) * 1e9);
  if (t_faults->has_watchdog) timer_settime(t_faults->watchdog, 0, &time, nullptr);
}

int end_faults(const void* kernel) {
  set_watchdog(0);
  {
    const std::lock_guard<std::mutex> lock(g_mutex);
    int i = 0;
    if (--g_num_launches == 0) {
      for (const int signal : kSignals) sigaction(signal, &g_saved[i++], nullptr);
    }
  }
  std::string& text = report();
  text.clear();
  if (t_faults->error == cudaSuccess) return cudaSuccess;
  text = "simt: " + kernel_name(kernel) + ": " + t_faults->position + t_faults->message;
  for (int b = 0; b < t_faults->num_blames; ++b) {
    text +=
        std::string("\n    ") + t_faults->blames[b].label + " " + describe(t_faults->blames[b].pc);
  }
  if (options().print_reports) std::fprintf(stderr, "%s\n", text.c_str());
  return t_faults->error;
}

}  // namespace simt
