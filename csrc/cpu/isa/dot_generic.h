// Tile sizes and integer dot products for any machine; the other dot_*.h have the same functions.
#pragma once

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

constexpr int kPanelVecs = 2;     // vectors of outputs in a panel
constexpr int kFloatRows = 4;     // most rows of a float tile
constexpr int kInt8Rows = 4;      // most rows of an int8 tile
constexpr int kInt4Rows = 4;      // most rows of an int4 tile
constexpr int kWeightOffset = 0;  // added to stored int8 weights; unless 0, sums start at `starts`
constexpr int32_t kFirstSum = 0;  // where other sums start

/// Vec::kSize words of an even and an odd input each, as float32.
inline void load_bfloat16_pairs(const BFloat16* w, Vec& even, Vec& odd) {
  for (int i = 0; i < Vec::kSize; ++i) {
    even.lane[i] = to_float(w[2 * i]);
    odd.lane[i] = to_float(w[2 * i + 1]);
  }
}

/// Four bytes for each of Vec::kSize outputs.
struct Quads {
  int8_t byte[4 * Vec::kSize];
};

inline Quads load_quads(const char* p) {
  Quads out;
  std::memcpy(out.byte, p, sizeof out.byte);
  return out;
}

/// The four activations at x for every output.
inline Quads broadcast_quad(const int8_t* x) {
  Quads out;
  for (int i = 0; i < Vec::kSize; ++i) std::memcpy(out.byte + 4 * i, x, 4);
  return out;
}

/// The lower and the upper halves of bytes, 0 … 15.
inline Quads low_nibbles(Quads bytes) {
  for (int8_t& byte : bytes.byte) byte = static_cast<int8_t>(byte & 0xf);
  return bytes;
}
inline Quads high_nibbles(Quads bytes) {
  for (int8_t& byte : bytes.byte) byte = static_cast<int8_t>(static_cast<uint8_t>(byte) >> 4);
  return bytes;
}

/// Integer sums of Vec::kSize outputs.
struct Sums {
  int32_t lane[Vec::kSize];
};

/// The same, of products with nibbles and of one group only: less than 16 bits are enough.
using NibbleSums = Sums;

inline void set(Sums& sums, int32_t value) {
  for (int32_t& lane : sums.lane) lane = value;
}

/// sums += the four products of each output; w as stored, kWeightOffset included.
inline void add_dot(Sums& sums, const Quads& w, const Quads& x) {
  for (int i = 0; i < Vec::kSize; ++i) {
    const int8_t *a = w.byte + 4 * i, *b = x.byte + 4 * i;
    sums.lane[i] += a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3];
  }
}

/// The same for w in 0 … 15.
inline void add_nibble_dot(NibbleSums& sums, const Quads& w, const Quads& x) {
  add_dot(sums, w, x);
}

/// What sums are multiplied by, in the form `scaled` takes it.
using SumScale = Vec;
inline SumScale sum_scale(Vec scale) { return scale; }

/// float(sums - kFirstSum) * scale, rounded as that product is.
inline Vec scaled(const Sums& sums, SumScale scale) { return load(sums.lane) * scale; }

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE
