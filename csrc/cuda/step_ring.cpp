#include "cuda/step_ring.h"

#include <cstring>
#include <stdexcept>
#include <string>

#include "cuda/workspace.h"

namespace medusa::cuda {

StepRing::StepRing(int32_t capacity, int32_t num_sequences, int32_t max_path)
    : num_sequences_(num_sequences), max_path_(max_path) {
  const int64_t rows = int64_t{capacity} * num_sequences;
  const int64_t bytes = aligned_bytes(rows * max_path * 4) + 2 * aligned_bytes(rows * 4) +
                        aligned_bytes(capacity * int64_t{8});
  void* memory = nullptr;
  if (cudaMallocHost(&memory, static_cast<size_t>(bytes)) != cudaSuccess) {
    throw std::runtime_error("cuda: no pinned memory for a ring of " + std::to_string(capacity) +
                             " steps");
  }
  memory_ = std::shared_ptr<void>(memory, [](void* pinned) { cudaFreeHost(pinned); });
  std::memset(memory, 0, static_cast<size_t>(bytes));
  Workspace pieces(memory);
  entries_.capacity = capacity;
  entries_.tokens = pieces.take<int32_t>(rows * max_path);
  entries_.counts = pieces.take<int32_t>(rows);
  entries_.finished = pieces.take<int32_t>(rows);
  entries_.steps = pieces.take<uint64_t>(capacity);
}

bool StepRing::is_ready(uint64_t step) const {
  const uint64_t* number = entries_.steps + step % static_cast<uint64_t>(entries_.capacity);
  return __atomic_load_n(number, __ATOMIC_ACQUIRE) == step + 1;
}

StepRing::Sequence StepRing::read(uint64_t step, int32_t b) const {
  const auto entry = static_cast<int64_t>(step % static_cast<uint64_t>(entries_.capacity));
  const int64_t row = entry * num_sequences_ + b;
  const int32_t* tokens = entries_.tokens + row * max_path_;
  return {std::vector<int32_t>(tokens, tokens + entries_.counts[row]), entries_.finished[row] != 0};
}

}  // namespace medusa::cuda
