// Every PTX instruction the kernels use, wrapped once. The emulator that runs these files on a
// CPU defines SIMT_EMU and stands in for each; all need sm_80.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

namespace medusa::cuda {

// The block's dynamic shared memory.
extern __shared__ __align__(1024) unsigned char dynamic_shared[];
#ifdef SIMT_EMU
SIMT_DEFINE_DYNAMIC_SHARED(dynamic_shared);
#endif

// ---- matrix products --------------------------------------------------------------------------
// d += a * b over a warp: a is 16 x 16, b 16 x 8, d 16 x 8 in float32. With group = lane / 4 and
// pair = lane % 4, a register of a or b holding two values, the lower index in the lower half:
//   a[i], row group + (i & 1) * 8, columns 2 * pair + (i >> 1) * 8 and the next
//   b[i], rows 2 * pair + i * 8 and the next, column group
//   d[i], row group + (i >> 1) * 8, column 2 * pair + (i & 1)
template <typename T>
__device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4],
                                             const uint32_t (&b)[2]) {
  static_assert(std::is_same_v<T, __nv_bfloat16> || std::is_same_v<T, __half>,
                "mma_m16n8k16 multiplies bfloat16 or half");
#ifdef SIMT_EMU
  simt::mma_m16n8k16(std::is_same_v<T, __half> ? simt::Format::kHalf : simt::Format::kBfloat16, d,
                     a, b, simt::Site::here());
#else
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
#endif
}

// ---- shared memory to fragments ---------------------------------------------------------------
__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Loads Count 8 x 8 matrices of 16-bit values, one register each. Lane 8 * i + r gives the address
// of row r of matrix i (16 bytes, aligned); lanes from 8 * Count up are not read. Afterwards a
// lane holds, of each matrix, columns 2 * (lane % 4) and the next of row lane / 4; of the
// transposed matrix with `Trans`.
template <int Count, bool Trans>
__device__ __forceinline__ void ldmatrix(uint32_t (&registers)[Count], const void* row) {
  static_assert(Count == 2 || Count == 4, "ldmatrix loads 2 or 4 matrices");
#ifdef SIMT_EMU
  simt::ldmatrix(Count, Trans, registers, row, simt::Site::here());
#else
  const uint32_t address = shared_address(row);
  if constexpr (Count == 4 && !Trans) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                 : "r"(address)
                 : "memory");
  } else if constexpr (Count == 4) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                 : "r"(address)
                 : "memory");
  } else if constexpr (!Trans) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(registers[0]), "=r"(registers[1])
                 : "r"(address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(registers[0]), "=r"(registers[1])
                 : "r"(address)
                 : "memory");
  }
#endif
}
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&registers)[4], const void* row) {
  ldmatrix<4, false>(registers, row);
}
__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&registers)[4], const void* row) {
  ldmatrix<4, true>(registers, row);
}
__device__ __forceinline__ void ldmatrix_x2(uint32_t (&registers)[2], const void* row) {
  ldmatrix<2, false>(registers, row);
}
__device__ __forceinline__ void ldmatrix_x2_trans(uint32_t (&registers)[2], const void* row) {
  ldmatrix<2, true>(registers, row);
}

// ---- asynchronous copies ----------------------------------------------------------------------
// Starts copying 16 bytes from global to shared memory, past the first-level cache; writes zeros
// and reads nothing if not `valid`. Both addresses are aligned to 16. The bytes are there after
// cp_async_wait in this thread, and a barrier for the others.
__device__ __forceinline__ void cp_async_16(void* shared, const void* global, bool valid = true) {
#ifdef SIMT_EMU
  simt::copy_async(shared, global, valid ? 16 : 0);
#else
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
               "l"(global), "r"(valid ? 16 : 0)
               : "memory");
#endif
}

// Ends the group of this thread's copies since the last commit; a group may be empty.
__device__ __forceinline__ void cp_async_commit() {
#ifdef SIMT_EMU
  simt::commit_async();
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most Pending of this thread's groups are under way.
template <int Pending>
__device__ __forceinline__ void cp_async_wait() {
#ifdef SIMT_EMU
  simt::wait_async(Pending);
#else
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
#endif
}

// ---- arithmetic -------------------------------------------------------------------------------
// 2 to the power x, within 2 ulp; 2 to the minus infinity is 0.
__device__ __forceinline__ float ex2_approx(float x) {
#ifdef SIMT_EMU
  return exp2f(x);
#else
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
#endif
}

}  // namespace medusa::cuda
