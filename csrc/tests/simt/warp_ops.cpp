// The warp's collectives: each lane leaves its arguments, the last to come computes for all.
#include <cstring>

#include "cuda_bf16.h"
#include "cuda_fp16.h"
#include "internal.h"
#include "simt.h"

namespace simt {
namespace {

template <typename T>
T& arg(void* const* args, int lane) {
  return *static_cast<T*>(args[lane]);
}

template <typename F>
void for_each_lane(unsigned mask, F f) {
  for (; mask != 0; mask &= mask - 1) f(__builtin_ctz(mask));
}

struct Shuffle {
  uint64_t value;
  int source;
  uint64_t result;
};
struct Vote {
  bool predicate;
  unsigned result;
};
struct Match {
  uint64_t value;
  unsigned result;
};
struct Reduce {
  uint32_t (*op)(uint32_t, uint32_t);
  uint32_t value, result;
};

struct Ldmatrix {
  int count;
  bool trans;
  const uint16_t* row;
  uint32_t* registers;
};

void combine_ldmatrix(void* const* args, unsigned) {
  const int count = arg<Ldmatrix>(args, 0).count;
  const bool trans = arg<Ldmatrix>(args, 0).trans;
  for (int m = 0; m < count; ++m) {
    uint16_t matrix[8][8];
    for (int r = 0; r < 8; ++r) std::memcpy(matrix[r], arg<Ldmatrix>(args, m * 8 + r).row, 16);
    for (int l = 0; l < kWarpSize; ++l) {
      const int major = l / 4, minor = l % 4 * 2;
      const uint32_t low = trans ? matrix[minor][major] : matrix[major][minor];
      const uint32_t high = trans ? matrix[minor + 1][major] : matrix[major][minor + 1];
      arg<Ldmatrix>(args, l).registers[m] = low | high << 16;
    }
  }
}

struct Mma {
  float* d;
  const uint32_t *a, *b;
};

template <typename T>
void unpack(uint32_t pair, float& low, float& high) {
  low = T::from_bits(static_cast<uint16_t>(pair));
  high = T::from_bits(static_cast<uint16_t>(pair >> 16));
}

// PTX ISA, "Matrix fragments for mma.m16n8k16 with floating point type". Each element's products
// are added in the order of k in float32.
template <typename T>
void combine_mma(void* const* args, unsigned) {
  float a[16][16], b[16][8], d[16][8];
  for (int l = 0; l < kWarpSize; ++l) {
    const Mma& mma = arg<Mma>(args, l);
    const int group = l / 4, pair = l % 4 * 2;
    for (int i = 0; i < 4; ++i) {
      const int row = group + (i % 2) * 8, column = pair + (i / 2) * 8;
      unpack<T>(mma.a[i], a[row][column], a[row][column + 1]);
    }
    for (int i = 0; i < 2; ++i) {
      const int row = pair + i * 8;
      unpack<T>(mma.b[i], b[row][group], b[row + 1][group]);
    }
    for (int i = 0; i < 4; ++i) d[group + (i / 2) * 8][pair + i % 2] = mma.d[i];
  }
  for (int row = 0; row < 16; ++row) {
    for (int k = 0; k < 16; ++k) {
      for (int column = 0; column < 8; ++column) d[row][column] += a[row][k] * b[k][column];
    }
  }
  for (int l = 0; l < kWarpSize; ++l) {
    for (int i = 0; i < 4; ++i) {
      arg<Mma>(args, l).d[i] = d[l / 4 + (i / 2) * 8][l % 4 * 2 + i % 2];
    }
  }
}

}  // namespace

void warp_barrier(unsigned mask, Site site) {
  const auto combine = [](void* const*, unsigned lanes) {
    race::on_warp_barrier(running_thread() / kWarpSize, lanes);
  };
  collective("__syncwarp", mask, combine, nullptr, site, SIMT_CALLER);
}

uint64_t shuffle(unsigned mask, uint64_t bits, int source_lane, Site site) {
  Shuffle shuffle = {bits, source_lane, 0};
  const auto combine = [](void* const* args, unsigned lanes) {
    for_each_lane(lanes, [&](int l) {
      const int source = arg<Shuffle>(args, l).source;
      uint64_t& result = arg<Shuffle>(args, l).result;
      if ((lanes >> source & 1) != 0) {
        result = arg<Shuffle>(args, source).value;
      } else {
        std::memset(&result, options().poison, sizeof result);  // undefined on the device
      }
    });
  };
  collective("a shuffle", mask, combine, &shuffle, site, SIMT_CALLER);
  return shuffle.result;
}

unsigned ballot(unsigned mask, bool predicate, Site site) {
  Vote vote = {predicate, 0};
  const auto combine = [](void* const* args, unsigned lanes) {
    unsigned result = 0;
    for_each_lane(lanes, [&](int l) { result |= unsigned{arg<Vote>(args, l).predicate} << l; });
    for_each_lane(lanes, [&](int l) { arg<Vote>(args, l).result = result; });
  };
  collective("a vote", mask, combine, &vote, site, SIMT_CALLER);
  return vote.result;
}

unsigned match_any(unsigned mask, uint64_t value, Site site) {
  Match match = {value, 0};
  const auto combine = [](void* const* args, unsigned lanes) {
    for_each_lane(lanes, [&](int l) {
      for_each_lane(lanes, [&](int other) {
        const bool equal = arg<Match>(args, l).value == arg<Match>(args, other).value;
        arg<Match>(args, l).result |= unsigned{equal} << other;
      });
    });
  };
  collective("__match_any_sync", mask, combine, &match, site, SIMT_CALLER);
  return match.result;
}

uint32_t reduce(unsigned mask, uint32_t (*op)(uint32_t, uint32_t), uint32_t value, Site site) {
  Reduce reduce = {op, value, 0};
  const auto combine = [](void* const* args, unsigned lanes) {
    const int first = __builtin_ctz(lanes);
    uint32_t result = arg<Reduce>(args, first).value;
    for_each_lane(lanes & (lanes - 1), [&](int l) {
      result = arg<Reduce>(args, l).op(result, arg<Reduce>(args, l).value);
    });
    for_each_lane(lanes, [&](int l) { arg<Reduce>(args, l).result = result; });
  };
  collective("a reduction", mask, combine, &reduce, site, SIMT_CALLER);
  return reduce.result;
}

void ldmatrix(int count, bool trans, uint32_t* registers, const void* row, Site site) {
  const void* pc = SIMT_CALLER;
  if (lane < 8 * count) {
    check_shared("ldmatrix", row, 16, pc);
    race::access(race::Access::kRead, row, 16, pc);
  }
  Ldmatrix ldmatrix = {count, trans, static_cast<const uint16_t*>(row), registers};
  collective("ldmatrix", kFullMask, combine_ldmatrix, &ldmatrix, site, pc);
}

void atomic_access(const volatile void* address, size_t bytes, const void* pc) {
  race::access(race::Access::kAtomic, address, bytes, pc);
}

void mma_m16n8k16(Format format, float* d, const uint32_t* a, const uint32_t* b, Site site) {
  Mma mma = {d, a, b};
  collective("mma", kFullMask,
             format == Format::kHalf ? combine_mma<__half> : combine_mma<__nv_bfloat16>, &mma, site,
             SIMT_CALLER);
}

}  // namespace simt
