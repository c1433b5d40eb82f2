// Top-k and top-p as one threshold per row, by radix search: four passes of 8 bits each over the
// logits' order-preserving integers, whatever the logits are.
#include "cuda/runtime/device_math.cuh"
#include "cuda/runtime/dispatch.h"
#include "cuda/runtime/launch.cuh"
#include "cuda/sampling/row_reduction.h"

namespace medusa::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kBins = 256;
constexpr int kBinsPerLane = kBins / kWarp;
constexpr int kCopies = 8;  // of the histogram, so that fewer warps meet at one address
// Probability masses are counted in units of 2^-40 of the most probable token's: integers, so that
// sums do not depend on the order in which threads add.
constexpr float kMassUnit = 1099511627776.0f;

struct Search {
  unsigned long long bins[kCopies][kBins];
  float scratch[kThreads / kWarp];
  uint32_t digit;            // of the bin where the sum from above reaches the goal
  unsigned long long above;  // the sum of the bins above it
};

// ---- kernels ----------------------------------------------------------------------------------

// Warp 0 finds the highest bin at which the sum of all bins from the top reaches `goal`, with
// `is_share` the share `goal_share` of the sum of all. Lane l owns bins 255 - 8l … 248 - 8l.
__device__ __forceinline__ void find_digit(Search& search, unsigned long long& goal,
                                           float goal_share, bool is_share) {
  const int lane = static_cast<int>(threadIdx.x);
  unsigned long long own[kBinsPerLane], sum = 0;
#pragma unroll
  for (int i = 0; i < kBinsPerLane; ++i) {
    own[i] = 0;
    for (int copy = 0; copy < kCopies; ++copy) {
      own[i] += search.bins[copy][kBins - 1 - lane * kBinsPerLane - i];
    }
    sum += own[i];
  }
  unsigned long long prefix = sum;  // inclusive
#pragma unroll
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const unsigned long long below = __shfl_up_sync(kAllLanes, prefix, offset);
    if (lane >= offset) prefix += below;
  }
  if (is_share) {
    const unsigned long long total = __shfl_sync(kAllLanes, prefix, kWarp - 1);
    goal = static_cast<unsigned long long>(static_cast<double>(goal_share) *
                                           static_cast<double>(total));
    if (goal == 0) goal = 1;
  }
  const unsigned reached = __ballot_sync(kAllLanes, prefix >= goal);
  // Nothing reaches a goal greater than everything there is: the lowest bin then keeps all.
  const int owner = reached != 0 ? __ffs(static_cast<int>(reached)) - 1 : kWarp - 1;
  if (lane != owner) return;
  unsigned long long above = prefix - sum;
  int i = 0;
  while (i < kBinsPerLane - 1 && above + own[i] < goal) above += own[i++];
  search.digit = static_cast<uint32_t>(kBins - 1 - lane * kBinsPerLane - i);
  search.above = above;
}

// The highest key t such that the weights of all logits with keys from t up sum to the goal.
// Weights: 1 each (top-k), or the mass relative to `max` (top-p, only of keys from `floor` up).
template <typename T, bool kMass>
__device__ __forceinline__ uint32_t search_key(const T* logits, int64_t width,
                                               const SamplingRule& rule, float max, uint32_t floor,
                                               Search& search) {
  const int thread = static_cast<int>(threadIdx.x);
  unsigned long long goal = kMass ? 0 : static_cast<unsigned long long>(rule.top_k);
  uint32_t key = 0;
#pragma unroll 1
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int i = thread; i < kCopies * kBins; i += kThreads) (&search.bins[0][0])[i] = 0;
    __syncthreads();
    const uint32_t known = shift == 24 ? 0 : key >> (shift + 8);
    unsigned long long* bins = search.bins[thread / kWarp % kCopies];
    visit_row(logits, 0, width, thread, kThreads,
              [&](int64_t first, float (&values)[16 / sizeof(T)]) {
#pragma unroll
                for (int i = 0; i < static_cast<int>(16 / sizeof(T)); ++i) {
                  if (first + i < 0 || first + i >= width) continue;
                  const uint32_t bits = ordered_bits(values[i]);
                  if (shift < 24 && bits >> (shift + 8) != known) continue;
                  unsigned long long weight = 1;
                  if constexpr (kMass) {
                    if (bits < floor) continue;
                    const float mass = expf((values[i] - max) / rule.temperature) * kMassUnit;
                    if (!(mass >= 1.0f)) continue;  // too small to count, or NaN
                    weight = static_cast<unsigned long long>(mass);
                  }
                  atomicAdd(&bins[bits >> shift & (kBins - 1)], weight);
                }
              });
    __syncthreads();
    if (thread < kWarp) find_digit(search, goal, rule.top_p, kMass && shift == 24);
    __syncthreads();
    key |= search.digit << shift;
    goal -= search.above;
  }
  return key;
}

// Grid (rows). A block owns a row and reads it once for the maximum and four times per filter.
template <typename T>
__global__ void __launch_bounds__(kThreads) threshold_kernel(ThresholdParams params) {
  __shared__ Search search;
  const LogitRows& rows = params.rows;
  const int64_t row = blockIdx.x;
  const int64_t source = rows.row_index != nullptr ? rows.row_index[row] : row;
  if (source < 0) return;
  const SamplingRule rule = params.rules[row];
  if (rule.temperature <= 0) return;
  const T* logits = static_cast<const T*>(rows.logits) + source * rows.row_stride;
  const int thread = static_cast<int>(threadIdx.x);

  uint32_t key = 0;
  if (rule.top_k > 0 && rule.top_k < rows.width) {
    key = search_key<T, false>(logits, rows.width, rule, 0.0f, 0, search);
  }
  if (rule.top_p < 1.0f) {
    float max = negative_infinity();
    visit_row(logits, 0, rows.width, thread, kThreads,
              [&](int64_t first, float (&values)[16 / sizeof(T)]) {
#pragma unroll
                for (int i = 0; i < static_cast<int>(16 / sizeof(T)); ++i) {
                  if (first + i >= 0 && first + i < rows.width) max = fmaxf(max, values[i]);
                }
              });
    max = warp_max(max);
    if (thread % kWarp == 0) search.scratch[thread / kWarp] = max;
    __syncthreads();
    for (int warp = 0; warp < kThreads / kWarp; ++warp) max = fmaxf(max, search.scratch[warp]);
    key = max_key(key, search_key<T, true>(logits, rows.width, rule, max, key, search));
  }
  if (thread == 0) {
    params.thresholds[row] = key == 0 ? negative_infinity() : from_ordered_bits(key);
  }
}

}  // namespace

// ---- launchers --------------------------------------------------------------------------------

cudaError_t sampling_thresholds(const CudaContext& context, const ThresholdParams& params) {
  if (params.rows.num_rows == 0) return cudaSuccess;
  return dispatch_float(params.rows.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return launch(threshold_kernel<T>, dim3(params.rows.num_rows), dim3(kThreads), 0,
                  context.stream, params);
  });
}

}  // namespace medusa::cuda
