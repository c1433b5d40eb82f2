#include <ATen/Parallel.h>

#include <atomic>

#include "bindings/bindings.h"

namespace medusa::bindings {
namespace {

constexpr int kMaxThreads = 1024;

/// 0: follow torch.
std::atomic<int>& chosen_threads() {
  static std::atomic<int> threads{0};
  return threads;
}

void set_num_threads(int num_threads) {
  if (num_threads < 1 || num_threads > kMaxThreads) {
    throw std::invalid_argument("num_threads: needs 1 to " + std::to_string(kMaxThreads) +
                                ", got " + std::to_string(num_threads));
  }
  chosen_threads() = num_threads;
}

}  // namespace

int num_threads() {
  const int chosen = chosen_threads();
  return chosen > 0 ? chosen : at::get_num_threads();
}

void register_threads(py::module_& module) {
  module.def("set_num_threads", set_num_threads, py::arg("num_threads"),
             "Threads of all later forwards of this process. Until it is called, forwards use "
             "torch.get_num_threads().");
  module.def("num_threads", num_threads, "Threads that the next forward uses.");
}

}  // namespace medusa::bindings
