// Every CPU kernel but the matrix products (linear_bench.cpp), by shape, for the sizes of SmolLM2,
// Llama-7B and Llama-3-8B. GB/s count what a call must read and write once.
//
//   MEDUSA_NUM_THREADS=2 MEDUSA_ISA=avx2 kernel_bench --benchmark_filter=tree_attention/smollm2
#include "benchmarks/kernel_bench.h"

int main(int argc, char** argv) {
  using namespace medusa::cpu;
  for (const ModelSizes& model : model_sizes()) {
    register_cache_kernels(model);
    register_row_kernels(model);
    register_step_kernels(model);
  }
  return run_benchmarks(argc, argv);
}
