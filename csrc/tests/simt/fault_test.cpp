// Every planted fault is caught, in the variant that is meant to catch it.
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <functional>
#include <numeric>

#include "simt.h"
#include "testing/kernels.h"

namespace simt_testing {
namespace {

using Kernel = cudaError_t (*)(Fault, const float*, float*);

class FaultTest : public testing::Test {
 protected:
  FaultTest() {
    simt::options() = simt::Options();
    simt::options().print_reports = false;
    cudaMalloc(&input_, 256 * sizeof(float));
    cudaMalloc(&output_, 256 * sizeof(float));
    std::iota(input_, input_ + 256, 3.0f);
  }
  ~FaultTest() override {
    cudaFree(input_);
    cudaFree(output_);
  }

  cudaError_t run(Kernel kernel, Fault fault, uint64_t seed = 0) {
    simt::options().seed = seed;
    std::fill_n(output_, 256, -2.0f);
    return kernel(fault, input_, output_);
  }
  bool output_is_right() const { return std::equal(input_, input_ + 256, output_); }

  // Under how many of the seeds 0 … 15 the fault shows, by a report or by the output.
  int count_shown(Kernel kernel, Fault fault) {
    int count = 0;
    for (uint64_t seed = 0; seed < 16; ++seed) {
      count += run(kernel, fault, seed) != cudaSuccess || !output_is_right() ? 1 : 0;
    }
    return count;
  }

  void expect_report(cudaError_t expected, const std::string& text, Kernel kernel, Fault fault) {
    EXPECT_EQ(expected, run(kernel, fault)) << simt::last_report();
    EXPECT_NE(std::string::npos, simt::last_report().find(text))
        << "expected: " << text << "\nreport:   " << simt::last_report();
  }

  float *input_ = nullptr, *output_ = nullptr;
};

// "faulty_kernels.cu:<line>" of the first line that holds the text.
std::string place(const std::string& text) {
  const std::string path = __FILE__;
  std::ifstream file(path.substr(0, path.rfind('/')) + "/testing/faulty_kernels.cu");
  int number = 0;
  for (std::string line; std::getline(file, line);) {
    ++number;
    if (line.find(text) != std::string::npos) return "faulty_kernels.cu:" + std::to_string(number);
  }
  return "no line with " + text;
}

TEST_F(FaultTest, KernelsWithoutFaultAreClean) {
  for (const Kernel kernel : {pipeline, exchange, access, collective}) {
    for (uint64_t seed = 0; seed < 16; ++seed) {
      EXPECT_EQ(cudaSuccess, run(kernel, Fault::kNone, seed)) << simt::last_report();
      EXPECT_TRUE(output_is_right());
      EXPECT_EQ("", simt::last_report());
    }
  }
}

// ---- found in every variant ---------------------------------------------------------------------
TEST_F(FaultTest, Collectives) {
  const auto expect = [&](Fault fault, const std::string& text) {
    expect_report(cudaErrorLaunchFailure, text, collective, fault);
  };
  expect(Fault::kHalfWarpAtFullMask, "its mask ffffffff names lane 16, which has returned");
  EXPECT_NE(std::string::npos, simt::last_report().find(place("lane < 16) __syncwarp()")));
  expect(Fault::kBarrierAtTwoSites, "divergent barriers: __syncthreads at ");
  expect(Fault::kBarrierSkippedByReturn,
         "64 threads wait, the other 64 of the block have returned");
  expect(Fault::kLaneOutsideMask, "lacks the calling lane 16");
  expect(Fault::kOverlappingMasks, "divergent collectives: a vote at ");
  expect(Fault::kReturnedLaneInMask, "which has returned");
  expect(Fault::kLoopCountsDiffer, "96 threads wait, the other 32 of the block have returned");
  expect(Fault::kWaitForEachOther,
         "no thread can go on: 0 of 128 have returned; 64 wait in __syncthreads at ");
  EXPECT_NE(std::string::npos, simt::last_report().find("warp 3, lanes ffff0000: wait for lanes"));
  expect(Fault::kTrap, "thread (5, 0, 0): __trap()");
  EXPECT_NE(std::string::npos, simt::last_report().find(place("__trap()")));
}

TEST_F(FaultTest, WaitingForAnotherBlockEndsByTheWatchdog) {
  simt::options().watchdog_seconds = 0.2;
  expect_report(cudaErrorLaunchTimeout, "watchdog", collective, Fault::kWaitForOtherBlock);
  EXPECT_EQ(cudaSuccess, run(collective, Fault::kNone));
}

TEST_F(FaultTest, OrderOfBlocks) {
  const int count = count_shown(collective, Fault::kBlockOrder);
  EXPECT_GT(count, 2);
  EXPECT_LT(count, 16);
}

TEST_F(FaultTest, AsyncCopies) {
  const auto expect = [&](Fault fault, const std::string& text) {
    expect_report(cudaErrorLaunchFailure, text, pipeline, fault);
    EXPECT_NE(std::string::npos, simt::last_report().find(place("cp_async_16(to")));
  };
  expect(Fault::kReturnWithoutWait, "cp.async not waited for");
  expect(Fault::kMisalignedCopy, "is not aligned to 16 bytes");
  expect(Fault::kCopyOutsideShared, "is not in the shared memory that the launch asked for");
}

TEST_F(FaultTest, LaunchLimits) {
  const auto expect = [&](const std::string& text, dim3 grid, dim3 block, size_t shared_bytes) {
    EXPECT_EQ(cudaErrorInvalidConfiguration, empty(grid, block, shared_bytes, false));
    EXPECT_NE(std::string::npos, simt::last_report().find(text)) << simt::last_report();
  };
  EXPECT_EQ(cudaSuccess, empty(1, 96, 48 * 1024, false)) << simt::last_report();
  expect("128 threads, the kernel's __launch_bounds__ allow 96", 1, 128, 0);
  expect("a block of 1025 x 1 x 1", 1, 1025, 0);
  expect("a block of 32 x 64 x 1", 1, dim3(32, 64), 0);
  expect("a block of 0 x 1 x 1", 1, 0, 0);
  expect("a block of 1 x 1 x 65", 1, dim3(1, 1, 65), 0);
  expect("a grid of 0 x 1 x 1", 0, 32, 0);
  expect("a grid of 1 x 65536 x 1", dim3(1, 65536), 32, 0);
  expect("49153 bytes of dynamic shared memory, allowed are 49152", 1, 32, 48 * 1024 + 1);
  EXPECT_EQ(cudaErrorInvalidValue, empty(1, 32, 227 * 1024 + 1, true));
  EXPECT_EQ(cudaSuccess, empty(1, 32, 227 * 1024, true)) << simt::last_report();
}

// ---- found by value, or by the race detector ----------------------------------------------------
struct Race {
  Kernel kernel;
  Fault fault;
  const char *first, *second;  // text on the two lines that race
  int shown;                   // the fewest of 16 seeds under which the output is wrong
};
const Race kRaces[] = {
    {pipeline, Fault::kNoBarrierAfterWait, "cp_async_16(to", "buffer[part % 2 * kPart + i]", 8},
    {pipeline, Fault::kNoBarrierBeforeReuse, "buffer[part % 2 * kPart + i]", "cp_async_16(to", 8},
    {pipeline, Fault::kNoWait, "cp_async_16(to", "buffer[part % 2 * kPart + i]", 16},
    {exchange, Fault::kNoBlockBarrier, "values[thread] = input[thread]",
     "values[kThreads - 1 - thread]", 16},
    {exchange, Fault::kNoWarpBarrier, "values[thread] = input[kThreads + thread]",
     "= values[other]", 16},
    {exchange, Fault::kPartialWarpBarrier, "values[thread] = input[kThreads + thread]",
     "= values[other]", 8},
    {exchange, Fault::kNoSecondBarrier, "fmaxf(fmaxf(scratch", "scratch[threadIdx.x / 32] = value",
     4},
    // The last two never show by value: the emulator's shuffles and atomics order memory.
    {exchange, Fault::kShuffleAsBarrier, "values[thread] = input[kThreads + thread]",
     "= values[other]", 0},
    {exchange, Fault::kPlainBesideAtomic, "atomicAdd(&counter", "thread == 77) counter = 5", 0},
    {exchange, Fault::kMemcpyWithoutBarrier, "memcpy(values", "output[thread] = values[thread]", 0},
};

#ifdef SIMT_VARIANT_RACE
TEST_F(FaultTest, RacesAreNamedWithoutALuckySchedule) {
  for (const Race& race : kRaces) {
    expect_report(cudaErrorLaunchFailure, "race on shared memory", race.kernel, race.fault);
    const std::string report = simt::last_report();
    EXPECT_NE(std::string::npos, report.find(place(race.first))) << report << place(race.first);
    EXPECT_NE(std::string::npos, report.find(place(race.second))) << report << place(race.second);
    for (uint64_t seed = 1; seed < 8; ++seed) {
      EXPECT_EQ(cudaErrorLaunchFailure, run(race.kernel, race.fault, seed)) << seed;
    }
  }
}
#else
TEST_F(FaultTest, MissingBarriersShowUnderSomeSeed) {
  for (const Race& race : kRaces) {
    EXPECT_GE(count_shown(race.kernel, race.fault), race.shown) << place(race.first);
  }
}
#endif

// ---- memory -------------------------------------------------------------------------------------
TEST_F(FaultTest, UninitialisedMemoryChangesWithThePoison) {
  std::vector<Fault> faults = {Fault::kUninitialisedShared, Fault::kUninitialisedGlobal};
#ifdef SIMT_VARIANT_PLAIN  // elsewhere the instrumentation's calls write over the stack
  faults.push_back(Fault::kUninitialisedLocal);
#endif
  for (const Fault fault : faults) {
    const auto run_once = [&] {
      EXPECT_EQ(cudaSuccess, access(fault, input_, output_));
      std::vector<unsigned char> bytes(256 * sizeof(float));
      std::memcpy(bytes.data(), output_, bytes.size());
      return bytes;
    };
    EXPECT_NE(std::string::npos, simt::compare_schedules(run_once, 1).find("byte 800 differs"));
  }
}

#ifdef SIMT_VARIANT_ADDRESS
TEST_F(FaultTest, OutOfBounds) {
  simt::options().print_reports = true;
  EXPECT_DEATH(access(Fault::kGlobalOutOfBounds, input_, output_),
               "AddressSanitizer.*\n.*access_kernel.*" + place("value = input[from]"));
  EXPECT_DEATH(access(Fault::kDynamicSharedOutOfBounds, input_, output_),
               "use-after-poison(.*\n)*.*" + place("large[length] = value"));
  EXPECT_DEATH(access(Fault::kStaticSharedOutOfBounds, input_, output_),
               place("small[i % 128 + length") + ".*index 128 out of bounds");
  EXPECT_DEATH(access(Fault::kStackOutOfBounds, input_, output_),
               place("local[length / 16] = value") + ".*index 16 out of bounds");
}
#else
TEST_F(FaultTest, OutOfBounds) {
  expect_report(cudaErrorIllegalAddress, "thread (72, 0, 0): illegal access", access,
                Fault::kGlobalOutOfBounds);
  EXPECT_NE(std::string::npos, simt::last_report().find(place("value = input[from]")));
  expect_report(cudaErrorLaunchFailure, "byte 1024 was written, the launch asked for 1024", access,
                Fault::kDynamicSharedOutOfBounds);
}
TEST_F(FaultTest, DivisionByZero) {
  expect_report(cudaErrorLaunchFailure, "thread (5, 0, 0): integer division by zero", collective,
                Fault::kDivisionByZero);
}
#endif

}  // namespace
}  // namespace simt_testing
