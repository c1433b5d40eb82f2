// What a test may ask of the emulator: how the next launches run, and what the last one reported.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace simt {

struct Options {
  uint64_t seed = 0;             // schedule: 0 runs warps and lanes in order, others vary it
  unsigned char poison = 0xFF;   // byte that fills memory before it is first written
  double watchdog_seconds = 20;  // processor time one block may take
  int compute_capability = 90;   // that the device says it has
  bool print_reports = true;     // also write each report to stderr
};

// Options of the calling OS thread.
Options& options();

// The fault of the calling OS thread's last launch; empty when it ran clean.
const std::string& last_report();

// Runs `run` under seeds 0 … num_seeds-1, each with two poison bytes. `run` returns the output's
// bytes. Returns "" if they never differ, else where they first do.
std::string compare_schedules(const std::function<std::vector<unsigned char>()>& run,
                              int num_seeds = 8);

}  // namespace simt
