#include <chrono>

#include "bindings/bindings.h"

namespace medusa::bindings {
namespace {

using Clock = std::chrono::steady_clock;

/// Between two looks for signals: long beside what taking the GIL costs, short for a person.
constexpr std::chrono::milliseconds kPause{20};

}  // namespace

std::function<void()> make_signal_check() {
  // Python handles signals on its main thread only; others need not wait for the GIL.
  const auto main = py::module_::import("threading").attr("main_thread")().attr("ident");
  return [main = main.cast<unsigned long>(), last = Clock::now()]() mutable {
    const Clock::time_point now = Clock::now();
    if (now - last < kPause || PyThread_get_thread_ident() != main) return;
    const py::gil_scoped_acquire gil;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    last = Clock::now();
  };
}

}  // namespace medusa::bindings
