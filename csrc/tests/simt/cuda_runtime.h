// Shadow of CUDA's cuda_runtime.h: device qualifiers, built-in variables and functions over the
// engine, and as much of the host API as a launcher needs.
#pragma once

#define SIMT_EMU 1

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <functional>
#include <type_traits>
#include <utility>

#include "engine.h"

// ---- qualifiers -------------------------------------------------------------------------------
#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __forceinline__ inline
#define __align__(n) __attribute__((aligned(n)))
// One object per OS thread and template instance; the engine treats the kernel library's
// thread-local segment as the block's shared memory.
#define __shared__ thread_local
// Recorded as one no-op per 32 threads in front of the function, which the engine counts.
#define __launch_bounds__(threads, ...) \
  __attribute__((patchable_function_entry(((threads) + 31) / 32, ((threads) + 31) / 32)))

// An `extern __shared__` array needs one definition: once per name, in the array's namespace,
// after its declaration.
#define SIMT_DEFINE_DYNAMIC_SHARED(name)                                                          \
  alignas(1024) __attribute__((weak)) thread_local unsigned char name[::simt::kDynamicAreaBytes]; \
  [[maybe_unused]] static const bool simt_registered_##name =                                     \
      ::simt::register_dynamic_shared([]() -> void* { return name; })

// ---- built-in variables -----------------------------------------------------------------------
extern SIMT_FAST_THREAD_LOCAL uint3 threadIdx;
extern SIMT_FAST_THREAD_LOCAL uint3 blockIdx;
extern SIMT_FAST_THREAD_LOCAL dim3 blockDim;
extern SIMT_FAST_THREAD_LOCAL dim3 gridDim;
constexpr int warpSize = simt::kWarpSize;

// ---- barriers and fences ----------------------------------------------------------------------
inline void __syncthreads(SIMT_SITE) { simt::block_barrier("__syncthreads", false, site); }
inline int __syncthreads_count(int predicate, SIMT_SITE) {
  return simt::block_barrier("__syncthreads_count", predicate != 0, site);
}
inline int __syncthreads_and(int predicate, SIMT_SITE) {
  return simt::block_barrier("__syncthreads_and", predicate == 0, site) == 0;
}
inline int __syncthreads_or(int predicate, SIMT_SITE) {
  return simt::block_barrier("__syncthreads_or", predicate != 0, site) != 0;
}
inline void __syncwarp(unsigned mask = 0xFFFFFFFFu, SIMT_SITE) { simt::warp_barrier(mask, site); }
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}
inline void __nanosleep(unsigned) {}
[[noreturn]] inline void __trap() { simt::trap(); }

// ---- shuffles, votes, reductions --------------------------------------------------------------
namespace simt {
template <typename To, typename From>
To bit_cast(From from) {
  static_assert(std::is_trivially_copyable_v<From> && sizeof(From) <= 8, "at most 8 bytes");
  To to = {};
  __builtin_memcpy(&to, &from, sizeof(From) < sizeof(To) ? sizeof(From) : sizeof(To));
  return to;
}
template <typename T>
T shuffle_value(unsigned mask, T value, int source_lane, Site site) {
  return bit_cast<T>(shuffle(mask, bit_cast<uint64_t>(value), source_lane, site));
}
// `source`, or the own lane if that is past the segment's end.
inline int up_to_segment_end(int source, int width) {
  return source > (lane | (width - 1)) ? lane : source;
}
}  // namespace simt

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = warpSize, SIMT_SITE) {
  source = (simt::lane & ~(width - 1)) | (source & (width - 1));
  return simt::shuffle_value(mask, value, source, site);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize, SIMT_SITE) {
  const int source = simt::lane - static_cast<int>(delta), first = simt::lane & ~(width - 1);
  return simt::shuffle_value(mask, value, source < first ? simt::lane : source, site);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize, SIMT_SITE) {
  const int source = simt::lane + static_cast<int>(delta);
  return simt::shuffle_value(mask, value, simt::up_to_segment_end(source, width), site);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = warpSize, SIMT_SITE) {
  const int source = simt::lane ^ lane_mask;
  return simt::shuffle_value(mask, value, simt::up_to_segment_end(source, width), site);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, SIMT_SITE) {
  return simt::ballot(mask, predicate != 0, site);
}
inline int __any_sync(unsigned mask, int predicate, SIMT_SITE) {
  return simt::ballot(mask, predicate != 0, site) != 0;
}
inline int __all_sync(unsigned mask, int predicate, SIMT_SITE) {
  return simt::ballot(mask, predicate == 0, site) == 0;
}
template <typename T>
unsigned __match_any_sync(unsigned mask, T value, SIMT_SITE) {
  return simt::match_any(mask, simt::bit_cast<uint64_t>(value), site);
}
#define SIMT_REDUCE(name, T, op)                                                            \
  inline T __reduce_##name##_sync(unsigned mask, T value, SIMT_SITE) {                      \
    const auto combine = [](unsigned x, unsigned y) -> unsigned {                           \
      [[maybe_unused]] const T a = static_cast<T>(x), b = static_cast<T>(y);                \
      return static_cast<unsigned>(op);                                                     \
    };                                                                                      \
    return static_cast<T>(simt::reduce(mask, combine, static_cast<unsigned>(value), site)); \
  }
SIMT_REDUCE(add, unsigned, a + b)
SIMT_REDUCE(add, int, x + y)
SIMT_REDUCE(min, unsigned, a < b ? a : b)
SIMT_REDUCE(min, int, a < b ? a : b)
SIMT_REDUCE(max, unsigned, a > b ? a : b)
SIMT_REDUCE(max, int, a > b ? a : b)
SIMT_REDUCE(and, unsigned, a& b)
SIMT_REDUCE(or, unsigned, a | b)
SIMT_REDUCE(xor, unsigned, a ^ b)
#undef SIMT_REDUCE

// ---- atomics ----------------------------------------------------------------------------------
// A thread runs undisturbed between two collectives, so plain reads and writes are atomic. Not
// inlined, so that the return address is the caller's.
#define SIMT_ATOMIC_FUNCTION \
  template <typename T>      \
  __attribute__((noinline, no_sanitize("thread"))) T
#define SIMT_ATOMIC(name, result)                                           \
  SIMT_ATOMIC_FUNCTION name(T* address, std::common_type_t<T> value) {      \
    ::simt::atomic_access(address, sizeof(T), __builtin_return_address(0)); \
    const T old = *address;                                                 \
    *address = static_cast<T>(result);                                      \
    return old;                                                             \
  }
SIMT_ATOMIC(atomicAdd, old + value)
SIMT_ATOMIC(atomicSub, old - value)
SIMT_ATOMIC(atomicMin, value < old ? value : old)
SIMT_ATOMIC(atomicMax, value > old ? value : old)
SIMT_ATOMIC(atomicAnd, old& value)
SIMT_ATOMIC(atomicOr, old | value)
SIMT_ATOMIC(atomicXor, old ^ value)
SIMT_ATOMIC(atomicExch, value)
SIMT_ATOMIC(atomicDec, old == 0 || old > value ? value : old - 1)
#undef SIMT_ATOMIC
SIMT_ATOMIC_FUNCTION atomicCAS(T* address, std::common_type_t<T> expected,
                               std::common_type_t<T> value) {
  ::simt::atomic_access(address, sizeof(T), __builtin_return_address(0));
  const T old = *address;
  if (old == expected) *address = value;
  return old;
}

// ---- loads, bits, arithmetic ------------------------------------------------------------------
#define SIMT_LOAD(name)      \
  template <typename T>      \
  T name(const T* address) { \
    return *address;         \
  }
SIMT_LOAD(__ldg)
SIMT_LOAD(__ldcs)
SIMT_LOAD(__ldcg)
#undef SIMT_LOAD
template <typename T>
void __stcs(T* address, T value) {
  *address = value;
}
// Only for the address operands of PTX instructions.
inline size_t __cvta_generic_to_shared(const void* p) { return reinterpret_cast<size_t>(p); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(x); }
inline int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll(x); }
inline unsigned __brev(unsigned x) {
  unsigned result = 0;
  for (int i = 0; i < 32; ++i) result |= ((x >> i) & 1u) << (31 - i);
  return result;
}
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>((static_cast<uint64_t>(a) * b) >> 32);
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>((static_cast<unsigned __int128>(a) * b) >> 64);
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
  return static_cast<unsigned>(((static_cast<uint64_t>(high) << 32 | low) << (shift & 31)) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  return static_cast<unsigned>((static_cast<uint64_t>(high) << 32 | low) >> (shift & 31));
}
inline int __float_as_int(float x) { return simt::bit_cast<int>(x); }
inline unsigned __float_as_uint(float x) { return simt::bit_cast<unsigned>(x); }
inline float __int_as_float(int x) { return simt::bit_cast<float>(x); }
inline float __uint_as_float(unsigned x) { return simt::bit_cast<float>(x); }
inline int __float2int_rn(float x) { return static_cast<int>(nearbyintf(x)); }

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __saturatef(float x) { return fminf(fmaxf(x, 0.0f), 1.0f); }
// glibc's math.h declares these names without defining them.
#define __expf(x) expf(x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)

#define SIMT_EXTREMUM(name, order)                                                           \
  template <typename A, typename B,                                                          \
            typename = std::enable_if_t<std::is_arithmetic_v<A> && std::is_arithmetic_v<B>>> \
  constexpr std::common_type_t<A, B> name(A x, B y) {                                        \
    const std::common_type_t<A, B> a = x, b = y;                                             \
    return b order a || a != a ? b : a; /* the other if one is NaN */                        \
  }
SIMT_EXTREMUM(min, <)
SIMT_EXTREMUM(max, >)
#undef SIMT_EXTREMUM

// ---- host API ---------------------------------------------------------------------------------
enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorNotReady = 600,
  cudaErrorIllegalAddress = 700,
  cudaErrorLaunchTimeout = 702,
  cudaErrorLaunchFailure = 719,
  cudaErrorNotSupported = 801,
  cudaErrorStreamCaptureUnsupported = 900,
  cudaErrorStreamCaptureInvalidated = 901,
};
enum cudaMemcpyKind {
  cudaMemcpyHostToHost,
  cudaMemcpyHostToDevice,
  cudaMemcpyDeviceToHost,
  cudaMemcpyDeviceToDevice,
  cudaMemcpyDefault,
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum cudaDeviceAttr {
  cudaDevAttrMaxSharedMemoryPerBlock = 8,
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};
using cudaStream_t = struct CUstream_st*;
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
  struct cudaLaunchAttribute_st* attrs;
  unsigned numAttrs;
};

// Every call runs at once: streams keep no queue, so errors never arrive late. A stream that is
// captured keeps its calls instead, arguments included, for the launches of the graph.
namespace simt {
bool is_captured(cudaStream_t stream);
cudaError_t capture(cudaStream_t stream, std::function<cudaError_t()> call);
template <typename F>
cudaError_t enqueue(cudaStream_t stream, F call) {
  return is_captured(stream) ? capture(stream, std::move(call)) : call();
}
// An error while the calling thread captures a stream, which spoils the capture.
cudaError_t forbid_in_capture();
}  // namespace simt

template <typename... Params, typename... Args>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Params...),
                               Args&&... args) {
  const auto call = [config = *config, kernel](Params... params) {
    auto run = [&] { kernel(params...); };
    return static_cast<cudaError_t>(simt::launch(
        {config.gridDim, config.blockDim, config.dynamicSmemBytes},
        reinterpret_cast<const void*>(kernel),
        [](void* context) { (*static_cast<decltype(run)*>(context))(); }, &run));
  };
  return [&](Params... params) {
    return simt::enqueue(config->stream, [call, params...] { return call(params...); });
  }(std::forward<Args>(args)...);
}
namespace simt {
cudaError_t set_attribute(const void* kernel, cudaFuncAttribute attribute, int value);
cudaError_t allocate(void** pointer, size_t bytes);
// Whether cudaMalloc or cudaMallocHost returned memory that holds this address.
bool is_allocated(const void* pointer);
}  // namespace simt
template <typename T>
cudaError_t cudaFuncSetAttribute(T* kernel, cudaFuncAttribute attribute, int value) {
  return simt::set_attribute(reinterpret_cast<const void*>(kernel), attribute, value);
}
template <typename T>
cudaError_t cudaMalloc(T** pointer, size_t bytes) {
  return simt::allocate(reinterpret_cast<void**>(pointer), bytes);
}
template <typename T>
cudaError_t cudaMallocHost(T** pointer, size_t bytes) {
  return cudaMalloc(pointer, bytes);
}
cudaError_t cudaFree(void* pointer);
inline cudaError_t cudaFreeHost(void* pointer) { return cudaFree(pointer); }

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream = nullptr);
inline cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  const cudaError_t status = simt::forbid_in_capture();
  return status != cudaSuccess ? status : cudaMemcpyAsync(to, from, bytes, kind);
}
inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes,
                                   cudaStream_t stream = nullptr) {
  return simt::enqueue(stream, [=] { return memset(to, value, bytes), cudaSuccess; });
}
using cudaHostFn_t = void (*)(void*);
inline cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  return simt::enqueue(stream, [=] { return function(data), cudaSuccess; });
}
// Errors are returned by the call that makes them, and kept nowhere.
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaPeekAtLastError() { return cudaSuccess; }
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return simt::forbid_in_capture(); }
inline cudaError_t cudaStreamQuery(cudaStream_t) { return simt::forbid_in_capture(); }
inline cudaError_t cudaDeviceSynchronize() { return simt::forbid_in_capture(); }
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaSetDevice(int device) {
  return device == 0 ? cudaSuccess : cudaErrorInvalidValue;
}
cudaError_t cudaStreamCreate(cudaStream_t* stream);
cudaError_t cudaStreamDestroy(cudaStream_t stream);

enum cudaStreamCaptureMode {
  cudaStreamCaptureModeGlobal,
  cudaStreamCaptureModeThreadLocal,
  cudaStreamCaptureModeRelaxed,
};
using cudaGraph_t = struct CUgraph_st*;
using cudaGraphExec_t = struct CUgraphExec_st*;
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph,
                                 unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
const char* cudaGetErrorString(cudaError_t error);
