// The CPU kernels a test program runs: those MEDUSA_ISA names, else the best.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "cpu/runtime/context.h"
#include "cpu/runtime/isa.h"

namespace medusa {

/// Null when this machine lacks them; every test is skipped then.
inline const KernelTable* find_kernels_under_test() {
  const char* isa = std::getenv("MEDUSA_ISA");
  if (!isa || !*isa) return &cpu::kernel_table();
  for (const std::string& name : cpu::available_isas()) {
    if (name == isa) return &cpu::kernel_table(name);
  }
  return nullptr;
}

/// Those a test goes through that varies the instruction set itself: the one MEDUSA_ISA names where
/// the machine has it, else all.
inline std::vector<std::string> isas_under_test() {
  const char* wanted = std::getenv("MEDUSA_ISA");
  std::vector<std::string> isas;
  for (const std::string& name : cpu::available_isas()) {
    if (!wanted || !*wanted || name == wanted) isas.push_back(name);
  }
  return isas;
}

class SkipWithoutKernels : public ::testing::Environment {
 public:
  void SetUp() override {
    if (!find_kernels_under_test()) GTEST_SKIP() << "this machine lacks the instruction set";
  }
};

inline ::testing::Environment* const skip_without_kernels =
    ::testing::AddGlobalTestEnvironment(new SkipWithoutKernels);

inline const KernelTable& kernels_under_test() { return *find_kernels_under_test(); }

}  // namespace medusa
