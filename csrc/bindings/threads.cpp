#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <fstream>
#include <set>
#include <string>
#include <thread>

#include "bindings/bindings.h"

namespace medusa::bindings {
namespace {

/// 0: as many as torch uses.
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

/// What is wrong with MEDUSA_NUM_THREADS, for the first forward that would go by it.
std::string& fault_of_environment() {
  static std::string fault;
  return fault;
}

void read_environment() {
  const char* value = std::getenv("MEDUSA_NUM_THREADS");
  if (value == nullptr || *value == '\0') return;
  char* end = nullptr;
  const long num_threads = std::strtol(value, &end, 10);
  if (*end != '\0' || num_threads < 1 || num_threads > num_processors()) {
    fault_of_environment() = wrong_count("MEDUSA_NUM_THREADS", num_processors(), value).what();
    return;
  }
  chosen_threads() = static_cast<int>(num_threads);
}

/// A variable's whole number from 1 up; 0 where there is none.
int count_in_environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? 0 : std::max(std::atoi(value), 0);
}

/// What torch starts with: what OpenMP's or MKL's variable says, or else one per physical core,
/// which is known by the first of the processors that share it.
int initial_threads() {
  for (const char* name : {"OMP_NUM_THREADS", "MKL_NUM_THREADS"}) {
    if (const int count = count_in_environment(name); count > 0) return count;
  }
  std::set<std::string> cores;
  for (int processor = 0; processor < num_processors(); ++processor) {
    std::ifstream file("/sys/devices/system/cpu/cpu" + std::to_string(processor) +
                       "/topology/thread_siblings_list");
    std::string siblings;
    if (std::getline(file, siblings)) cores.insert(siblings);
  }
  return cores.empty() ? num_processors() : static_cast<int>(cores.size());
}

}  // namespace

int num_threads() {
  const int chosen = chosen_threads();
  if (chosen > 0) return chosen;
  if (!fault_of_environment().empty()) throw std::invalid_argument(fault_of_environment());
  const py::dict modules = py::module_::import("sys").attr("modules");
  if (modules.contains("torch")) {
    return modules["torch"].attr("get_num_threads")().cast<int>();
  }
  static const int initial = initial_threads();
  return initial;
}

void register_threads(py::module_& module) {
  read_environment();
  module.def("set_num_threads", set_num_threads, py::arg("num_threads"),
             "Threads of all later forwards of this process. Until it is called, forwards use "
             "MEDUSA_NUM_THREADS, or else as many as torch does.");
  module.def("num_threads", num_threads, "Threads that the next forward uses.");
}

}  // namespace medusa::bindings
