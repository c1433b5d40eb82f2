// Keyed Gumbel noise: a function of (seed, position, token), so that a token drawn at a position is
// the same for any tree, batch and backend that computes the same logits.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/host_device.h"

namespace medusa {

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every input bit reaches every output bit.
MEDUSA_HOST_DEVICE inline uint64_t mix_bits(uint64_t x) {
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ x >> 27) * 0x94d049bb133111ebull;
  return x ^ x >> 31;
}

/// The key of one draw; hoisted out of the loop over tokens.
MEDUSA_HOST_DEVICE inline uint64_t noise_key(uint64_t seed, int32_t position) {
  return mix_bits(seed + 0x9e3779b97f4a7c15ull * (static_cast<uint32_t>(position) + 1ull));
}

/// 32 uniform bits for one token: u = (bits + 0.5) / 2^32 is between 0 and 1.
MEDUSA_HOST_DEVICE inline uint32_t noise_bits(uint64_t key, int32_t token) {
  return static_cast<uint32_t>(
      mix_bits(key + 0x9e3779b97f4a7c15ull * (static_cast<uint32_t>(token) + 1ull)) >> 32);
}

/// Standard Gumbel noise -log(-log(1 - u)), between about -2.9 and 22.9. What wins a draw is small
/// u, where float32 is fine; the bound at the other end keeps 1 - u above 0.
MEDUSA_HOST_DEVICE inline float gumbel(uint32_t bits) {
  const float u = (static_cast<float>(bits) + 0.5f) * (1.0f / 4294967296.0f);
  return -logf(-log1pf(-fminf(u, 0.99999994f)));
}

}  // namespace medusa
