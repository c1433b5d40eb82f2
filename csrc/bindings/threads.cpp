#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <string>
#include <thread>

#include "bindings/bindings.h"

namespace medusa::bindings {
namespace {

/// 0: follow torch.
std::atomic<int>& chosen_threads() {
  static std::atomic<int> threads{0};
  return threads;
}

std::invalid_argument wrong_count(const std::string& name, int num_processors,
                                  const std::string& value) {
  return std::invalid_argument(name + ": needs 1 to " + std::to_string(num_processors) +
                               " (the processors of this machine), got " + value);
}

int num_processors() { return std::max(static_cast<int>(std::thread::hardware_concurrency()), 1); }

void set_num_threads(int num_threads) {
  if (num_threads < 1 || num_threads > num_processors()) {
    throw wrong_count("num_threads", num_processors(), std::to_string(num_threads));
  }
  chosen_threads() = num_threads;
}

void read_environment() {
  const char* value = std::getenv("MEDUSA_NUM_THREADS");
  if (value == nullptr || *value == '\0') return;
  char* end = nullptr;
  const long num_threads = std::strtol(value, &end, 10);
  if (*end != '\0' || num_threads < 1 || num_threads > num_processors()) {
    throw wrong_count("MEDUSA_NUM_THREADS", num_processors(), value);
  }
  chosen_threads() = static_cast<int>(num_threads);
}

}  // namespace

int num_threads() {
  const int chosen = chosen_threads();
  return chosen > 0 ? chosen : at::get_num_threads();
}

void register_threads(py::module_& module) {
  read_environment();
  module.def("set_num_threads", set_num_threads, py::arg("num_threads"),
             "Threads of all later forwards of this process. Until it is called, forwards use "
             "MEDUSA_NUM_THREADS, or else torch.get_num_threads().");
  module.def("num_threads", num_threads, "Threads that the next forward uses.");
}

}  // namespace medusa::bindings
