// Functions of Vec that are the same code for every instruction set.
#pragma once

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

/// e^x to about one unit in the last place; exactly 0 below -87.3 (-infinity included), finite
/// (2.4e38) above 88.37. x = n ln 2 + r with |r| <= ln 2 / 2; e^r by a polynomial (Cephes' expf).
inline Vec exp(Vec x) {
  const Vec lowest = broadcast(-87.33654f);
  const Vec clamped = max(min(x, broadcast(88.376259f)), lowest);
  const Vec n = round(clamped * broadcast(1.44269504088896341f));
  Vec r = fma(n, broadcast(-0.693359375f), clamped);
  r = fma(n, broadcast(2.12194440e-4f), r);
  Vec p = broadcast(1.9875691500e-4f);
  p = fma(p, r, broadcast(1.3981999507e-3f));
  p = fma(p, r, broadcast(8.3334519073e-3f));
  p = fma(p, r, broadcast(4.1665795894e-2f));
  p = fma(p, r, broadcast(1.6666665459e-1f));
  p = fma(p, r, broadcast(5.0000001201e-1f));
  const Vec y = fma(p, r * r, r) + broadcast(1.0f);
  return zero_unless_at_least(y * exp2_integer(n), x, lowest);
}

/// x * sigmoid(x).
inline Vec silu(Vec x) {
  const Vec one = broadcast(1.0f);
  return x / (one + exp(zero() - x));
}

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE
