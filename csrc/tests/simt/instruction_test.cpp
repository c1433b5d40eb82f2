// The instructions, one by one, against tables of the PTX ISA manual and plain arithmetic.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>
#include <sstream>

#include "simt.h"
#include "testing/kernels.h"

namespace simt_testing {
namespace {

constexpr uint32_t kFull = 0xFFFFFFFFu;

// "lane.register" of each pair of neighbours in a row of A, 16 x 16; PTX ISA, "Matrix fragments for
// mma.m16n8k16 with floating point type".
constexpr const char* kLayoutOfA = R"(
    0.0  1.0  2.0  3.0  0.2  1.2  2.2  3.2
    4.0  5.0  6.0  7.0  4.2  5.2  6.2  7.2
    8.0  9.0  10.0 11.0 8.2  9.2  10.2 11.2
    12.0 13.0 14.0 15.0 12.2 13.2 14.2 15.2
    16.0 17.0 18.0 19.0 16.2 17.2 18.2 19.2
    20.0 21.0 22.0 23.0 20.2 21.2 22.2 23.2
    24.0 25.0 26.0 27.0 24.2 25.2 26.2 27.2
    28.0 29.0 30.0 31.0 28.2 29.2 30.2 31.2
    0.1  1.1  2.1  3.1  0.3  1.3  2.3  3.3
    4.1  5.1  6.1  7.1  4.3  5.3  6.3  7.3
    8.1  9.1  10.1 11.1 8.3  9.3  10.3 11.3
    12.1 13.1 14.1 15.1 12.3 13.3 14.3 15.3
    16.1 17.1 18.1 19.1 16.3 17.3 18.3 19.3
    20.1 21.1 22.1 23.1 20.3 21.3 22.3 23.3
    24.1 25.1 26.1 27.1 24.3 25.3 26.3 27.3
    28.1 29.1 30.1 31.1 28.3 29.3 30.3 31.3)";
// Of each pair of neighbours in a column of B, 16 x 8.
constexpr const char* kLayoutOfB = R"(
    0.0  4.0  8.0  12.0 16.0 20.0 24.0 28.0
    1.0  5.0  9.0  13.0 17.0 21.0 25.0 29.0
    2.0  6.0  10.0 14.0 18.0 22.0 26.0 30.0
    3.0  7.0  11.0 15.0 19.0 23.0 27.0 31.0
    0.1  4.1  8.1  12.1 16.1 20.1 24.1 28.1
    1.1  5.1  9.1  13.1 17.1 21.1 25.1 29.1
    2.1  6.1  10.1 14.1 18.1 22.1 26.1 30.1
    3.1  7.1  11.1 15.1 19.1 23.1 27.1 31.1)";
// Of each element of C and D, 16 x 8.
constexpr const char* kLayoutOfD = R"(
    0.0  0.1  1.0  1.1  2.0  2.1  3.0  3.1
    4.0  4.1  5.0  5.1  6.0  6.1  7.0  7.1
    8.0  8.1  9.0  9.1  10.0 10.1 11.0 11.1
    12.0 12.1 13.0 13.1 14.0 14.1 15.0 15.1
    16.0 16.1 17.0 17.1 18.0 18.1 19.0 19.1
    20.0 20.1 21.0 21.1 22.0 22.1 23.0 23.1
    24.0 24.1 25.0 25.1 26.0 26.1 27.0 27.1
    28.0 28.1 29.0 29.1 30.0 30.1 31.0 31.1
    0.2  0.3  1.2  1.3  2.2  2.3  3.2  3.3
    4.2  4.3  5.2  5.3  6.2  6.3  7.2  7.3
    8.2  8.3  9.2  9.3  10.2 10.3 11.2 11.3
    12.2 12.3 13.2 13.3 14.2 14.3 15.2 15.3
    16.2 16.3 17.2 17.3 18.2 18.3 19.2 19.3
    20.2 20.3 21.2 21.3 22.2 22.3 23.2 23.3
    24.2 24.3 25.2 25.3 26.2 26.3 27.2 27.3
    28.2 28.3 29.2 29.3 30.2 30.3 31.2 31.3)";
// The lane that ldmatrix gives each pair of neighbours in a row of an 8 x 8 matrix.
constexpr const char* kLayoutOfLdmatrix = R"(
    0  1  2  3
    4  5  6  7
    8  9  10 11
    12 13 14 15
    16 17 18 19
    20 21 22 23
    24 25 26 27
    28 29 30 31)";
// With .trans, of each pair of neighbours in a column.
constexpr const char* kLayoutOfLdmatrixTrans = R"(
    0  4  8  12 16 20 24 28
    1  5  9  13 17 21 25 29
    2  6  10 14 18 22 26 30
    3  7  11 15 19 23 27 31)";

struct Place {
  int lane, index;
};
std::vector<Place> parse(const std::string& table) {
  std::istringstream stream(table);
  std::vector<Place> places;
  for (std::string word; stream >> word;) {
    const size_t dot = word.find('.');
    places.push_back({std::stoi(word), dot == word.npos ? 0 : std::stoi(word.substr(dot + 1))});
  }
  return places;
}

template <typename T>
void test_mma(bool half) {
  std::mt19937 generator(7);
  std::uniform_int_distribution<int> digit(-9, 9);
  float a[16][16], b[16][8], expected[16][8];
  for (auto& row : a) std::generate_n(row, 16, [&] { return digit(generator); });
  for (auto& row : b) std::generate_n(row, 8, [&] { return digit(generator); });
  for (auto& row : expected) std::generate_n(row, 8, [&] { return 100 * digit(generator); });

  uint32_t a_registers[32][4], b_registers[32][2];
  float d_registers[32][4];
  const auto pack = [](float low, float high) {
    return static_cast<uint32_t>(T(low).bits) | static_cast<uint32_t>(T(high).bits) << 16;
  };
  const auto a_places = parse(kLayoutOfA), b_places = parse(kLayoutOfB);
  const auto d_places = parse(kLayoutOfD);
  ASSERT_EQ(128u, a_places.size());
  ASSERT_EQ(64u, b_places.size());
  ASSERT_EQ(128u, d_places.size());
  for (int i = 0; i < 128; ++i) {
    const int row = i / 8, column = i % 8 * 2;
    a_registers[a_places[i].lane][a_places[i].index] = pack(a[row][column], a[row][column + 1]);
    d_registers[d_places[i].lane][d_places[i].index] = expected[i / 8][i % 8];
  }
  for (int i = 0; i < 64; ++i) {
    const int row = i / 8 * 2, column = i % 8;
    b_registers[b_places[i].lane][b_places[i].index] = pack(b[row][column], b[row + 1][column]);
  }
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 8; ++column) {
      for (int k = 0; k < 16; ++k) expected[row][column] += a[row][k] * b[k][column];
    }
  }
  ASSERT_EQ(cudaSuccess, mma_registers(half, *a_registers, *b_registers, *d_registers));
  for (int i = 0; i < 128; ++i) {
    EXPECT_EQ(expected[i / 8][i % 8], d_registers[d_places[i].lane][d_places[i].index]) << i;
  }
}

TEST(Instruction, MmaHalf) { test_mma<__half>(true); }
TEST(Instruction, MmaBfloat16) { test_mma<__nv_bfloat16>(false); }

TEST(Instruction, Ldmatrix) {
  uint16_t matrices[4][8][8];
  std::iota(&matrices[0][0][0], &matrices[0][0][0] + 256, uint16_t{1000});
  const auto plain = parse(kLayoutOfLdmatrix), trans = parse(kLayoutOfLdmatrixTrans);
  ASSERT_EQ(32u, plain.size());
  ASSERT_EQ(32u, trans.size());
  for (const int count : {2, 4}) {
    uint32_t registers[32][4] = {};
    const auto get = [&](int lane, int m) { return (&registers[0][0])[lane * count + m]; };
    ASSERT_EQ(cudaSuccess, ldmatrix_registers(count, false, **matrices, *registers));
    for (int i = 0; i < 32 * count; ++i) {
      const auto& matrix = matrices[i / 32];
      const int row = i % 32 / 4, column = i % 4 * 2;
      EXPECT_EQ(matrix[row][column] | matrix[row][column + 1] << 16,
                static_cast<int>(get(plain[i % 32].lane, i / 32)));
    }
    ASSERT_EQ(cudaSuccess, ldmatrix_registers(count, true, **matrices, *registers));
    for (int i = 0; i < 32 * count; ++i) {
      const auto& matrix = matrices[i / 32];
      const int row = i % 32 / 8 * 2, column = i % 8;
      EXPECT_EQ(matrix[row][column] | matrix[row + 1][column] << 16,
                static_cast<int>(get(trans[i % 32].lane, i / 32)));
    }
  }
}

TEST(Instruction, Shuffles) {
  uint32_t values[32], results[32];
  int operands[32];
  for (int l = 0; l < 32; ++l) {
    values[l] = 100 + l;
    operands[l] = (l * 7 + 3) % 32;
  }
  const auto run = [&](WarpOp op, int width, int operand) {
    int all[32];
    std::fill_n(all, 32, operand);
    EXPECT_EQ(cudaSuccess,
              warp_op(op, kFull, width, values, operand < 0 ? operands : all, results));
  };
  run(WarpOp::kShuffle, 32, -1);
  for (int l = 0; l < 32; ++l) EXPECT_EQ(values[operands[l]], results[l]);
  run(WarpOp::kShuffle, 8, 13);  // lane 13 % 8 of each segment
  for (int l = 0; l < 32; ++l) EXPECT_EQ(values[l / 8 * 8 + 5], results[l]);
  run(WarpOp::kShuffleUp, 16, 3);
  for (int l = 0; l < 32; ++l) EXPECT_EQ(values[l % 16 < 3 ? l : l - 3], results[l]);
  run(WarpOp::kShuffleDown, 16, 3);
  for (int l = 0; l < 32; ++l) EXPECT_EQ(values[l % 16 > 12 ? l : l + 3], results[l]);
  run(WarpOp::kShuffleXor, 32, 21);
  for (int l = 0; l < 32; ++l) EXPECT_EQ(values[l ^ 21], results[l]);
  run(WarpOp::kShuffleXor, 8, 9);  // into a later segment: the own value; into an earlier one: it
  for (int l = 0; l < 32; ++l) EXPECT_EQ(values[(l ^ 9) > (l | 7) ? l : l ^ 9], results[l]);

  std::fill_n(results, 32, 0u);
  std::fill_n(operands, 32, 2);
  EXPECT_EQ(cudaSuccess, warp_op(WarpOp::kShuffle, 0xF0Fu, 32, values, operands, results));
  for (int l = 0; l < 32; ++l) EXPECT_EQ((0xF0Fu >> l & 1) != 0 ? 102u : 0u, results[l]);
}

TEST(Instruction, VotesAndReductions) {
  std::mt19937 generator(3);
  for (const uint32_t mask : {kFull, 0x1u, 0x80000000u, 0xFFFFu, 0xA5A50FF0u}) {
    uint32_t values[32], results[32];
    for (uint32_t& value : values) value = generator() % 3 == 0 ? 0 : generator();
    values[9] = values[4];
    const auto expect = [&](WarpOp op, auto result_of) {
      ASSERT_EQ(cudaSuccess, warp_op(op, mask, 32, values, nullptr, results));
      for (int l = 0; l < 32; ++l) {
        if ((mask >> l & 1) != 0) {
          EXPECT_EQ(result_of(l), results[l]) << static_cast<int>(op) << " " << mask << " " << l;
        }
      }
    };
    const auto fold = [&](auto f) {
      bool first = true;
      uint32_t result = 0;
      for (int l = 0; l < 32; ++l) {
        if ((mask >> l & 1) == 0) continue;
        result = first ? values[l] : f(result, values[l]);
        first = false;
      }
      return [result](int) { return result; };
    };
    uint32_t ballot = 0;
    for (int l = 0; l < 32; ++l) ballot |= (values[l] != 0 ? 1u : 0u) << l;
    ballot &= mask;
    expect(WarpOp::kBallot, [&](int) { return ballot; });
    expect(WarpOp::kAny, [&](int) { return ballot != 0 ? 1u : 0u; });
    expect(WarpOp::kAll, [&](int) { return ballot == mask ? 1u : 0u; });
    expect(WarpOp::kMatchAny, [&](int l) {
      uint32_t equal = 0;
      for (int i = 0; i < 32; ++i) equal |= (values[i] == values[l] ? 1u : 0u) << i;
      return equal & mask;
    });
    using U = uint32_t;
    const auto as_int = [](U x) { return static_cast<int32_t>(x); };
    expect(WarpOp::kAdd, fold([](U a, U b) { return a + b; }));
    expect(WarpOp::kAddSigned, fold([](U a, U b) { return a + b; }));
    expect(WarpOp::kMin, fold([](U a, U b) { return std::min(a, b); }));
    expect(WarpOp::kMax, fold([](U a, U b) { return std::max(a, b); }));
    expect(WarpOp::kMinSigned, fold([&](U a, U b) { return as_int(a) < as_int(b) ? a : b; }));
    expect(WarpOp::kMaxSigned, fold([&](U a, U b) { return as_int(a) > as_int(b) ? a : b; }));
    expect(WarpOp::kAnd, fold([](U a, U b) { return a & b; }));
    expect(WarpOp::kOr, fold([](U a, U b) { return a | b; }));
    expect(WarpOp::kXor, fold([](U a, U b) { return a ^ b; }));
  }
}

TEST(Instruction, BarriersWithPredicates) {
  for (const int num_true : {0, 1, 95, 96}) {
    std::vector<int> predicates(96), results(96 * 3);
    std::fill_n(predicates.begin(), num_true, 2);
    ASSERT_EQ(cudaSuccess, barrier_ops(predicates.data(), results.data(), 96));
    for (int t = 0; t < 96; ++t) {
      EXPECT_EQ(num_true, results[t * 3]);
      EXPECT_EQ(num_true == 96 ? 1 : 0, results[t * 3 + 1]);
      EXPECT_EQ(num_true > 0 ? 1 : 0, results[t * 3 + 2]);
    }
  }
}

TEST(Instruction, Atomics) {
  constexpr int kThreads = 64;
  int words[2][kNumAtomics];
  for (auto& memory : words) {
    const int start[] = {5, 5, 1000, -1000, 255, 0, 0, -1, 0, 65};
    std::copy_n(start, kNumAtomics, memory);
  }
  ASSERT_EQ(cudaSuccess, atomics(*words, kThreads));
  const int sum = kThreads * (kThreads + 1) / 2;
  for (const auto& memory : words) {
    EXPECT_EQ(5 + sum, memory[0]);   // add
    EXPECT_EQ(5 - sum, memory[1]);   // sub
    EXPECT_EQ(1, memory[2]);         // min
    EXPECT_EQ(kThreads, memory[3]);  // max
    EXPECT_EQ(0, memory[4]);         // and
    EXPECT_EQ(127, memory[5]);       // or
    EXPECT_EQ(64, memory[6]);        // xor of 1 … 64
    EXPECT_EQ(sum - 1, memory[7]);   // the sum of what exchanges gave back, and the last value
    EXPECT_EQ(kThreads, memory[8]);  // add made of compare-and-swap, of 1 each
    EXPECT_EQ(1, memory[9]);         // dec, wrapping below 0 or above 65
  }
}

TEST(Instruction, AsyncCopiesLandAtTheWait) {
  alignas(16) const uint32_t input[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  uint32_t results[3][12];
  for (const unsigned char poison : {0xFF, 0x3C}) {
    simt::options().poison = poison;
    const uint32_t p = poison * 0x01010101u;
#ifdef SIMT_VARIANT_RACE
    EXPECT_EQ(cudaErrorLaunchFailure, async_groups(input, *results));
    EXPECT_NE(std::string::npos, simt::last_report().find("is in flight"));
    continue;
#endif
    ASSERT_EQ(cudaSuccess, async_groups(input, *results));
    const uint32_t expected[3][12] = {{1, 2, 3, 4, p, p, p, p, p, p, p, p},
                                      {1, 2, 3, 4, 5, 6, 7, 8, p, p, p, p},
                                      {1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0}};
    for (int i = 0; i < 36; ++i) EXPECT_EQ(expected[i / 12][i % 12], results[i / 12][i % 12]) << i;
  }
  simt::options() = simt::Options();
}

// The value of 16 bits by definition, with `mantissa` bits of it for the mantissa.
double decode(uint16_t bits, int mantissa) {
  const int bias = mantissa == 10 ? 15 : 127;
  const int exponent = (bits & 0x7FFF) >> mantissa, fraction = bits & ((1 << mantissa) - 1);
  if (exponent == 2 * bias + 1) return fraction != 0 ? NAN : bits >> 15 != 0 ? -INFINITY : INFINITY;
  const double magnitude = exponent == 0
                               ? std::ldexp(fraction, 1 - bias - mantissa)
                               : std::ldexp(fraction + (1 << mantissa), exponent - bias - mantissa);
  return bits >> 15 != 0 ? -magnitude : magnitude;
}

// Whether no other value is nearer to x, ties going to an even mantissa.
bool is_nearest(double x, uint16_t bits, int mantissa) {
  const double error = std::fabs(decode(bits, mantissa) - x);
  for (const int step : {-1, 1}) {
    const auto other = static_cast<uint16_t>(bits + step);
    if ((bits & 0x7FFF) == 0 && step < 0) continue;
    const double largest = decode(mantissa == 10 ? 0x7BFF : 0x7F7F, mantissa);
    double value = decode(other, mantissa);
    if (std::isinf(value))
      value = std::copysign(2 * largest - decode((mantissa == 10 ? 0x7BFF : 0x7F7F) - 1, mantissa),
                            value);
    const double other_error = std::fabs(value - x);
    if (other_error < error || (other_error == error && bits % 2 == 1)) return false;
  }
  return true;
}

void test_16_bit(bool half) {
  const int mantissa = half ? 10 : 7;
  std::vector<float> x, y;
  for (uint32_t bits = 0; bits < 0x10000; bits += 7) {  // every value's neighbourhood
    const double value = decode(static_cast<uint16_t>(bits), mantissa);
    const double next = decode(static_cast<uint16_t>(bits + 1), mantissa);
    if (!std::isfinite(value) || !std::isfinite(next)) continue;
    for (const double t : {0.0, 0.25, 0.5, 0.50001, 0.75}) {
      x.push_back(static_cast<float>(value + t * (next - value)));
      y.push_back(static_cast<float>(1 + static_cast<int>(bits % 5)));
    }
  }
  std::vector<HalfResults> results(x.size());
  const auto run = half ? half_ops : bfloat16_ops;
  ASSERT_EQ(cudaSuccess, run(x.data(), y.data(), results.data(), static_cast<int>(x.size())));
  for (size_t i = 0; i < x.size(); ++i) {
    const HalfResults& r = results[i];
    ASSERT_TRUE(is_nearest(x[i], r.x, mantissa)) << x[i] << " " << r.x;
    const double rounded = decode(r.x, mantissa), other = y[i];
    ASSERT_EQ(rounded, r.x_again);
    ASSERT_EQ(other, r.pair_y);
    ASSERT_EQ(r.x, r.low);
    ASSERT_EQ(decode(r.high, mantissa), other);
    ASSERT_EQ(std::max(rounded, other), decode(r.largest, mantissa));
    ASSERT_EQ(rounded < other, r.less);
    // The operators round a float32 result.
    const auto a = static_cast<float>(rounded), b = static_cast<float>(other);
    if (std::fabs(rounded) > decode(half ? 0x7000 : 0x7E00, mantissa)) continue;
    ASSERT_TRUE(is_nearest(a + b, r.sum, mantissa));
    ASSERT_TRUE(is_nearest(a - b, r.difference, mantissa));
    ASSERT_TRUE(is_nearest(a * b, r.product, mantissa));
    ASSERT_TRUE(is_nearest(a / b, r.quotient, mantissa));
  }
}

TEST(Instruction, Half) { test_16_bit(true); }
TEST(Instruction, Bfloat16) { test_16_bit(false); }

TEST(Instruction, SpecialValuesOf16Bits) {
  for (const bool half : {true, false}) {
    const float x[] = {INFINITY, -INFINITY, NAN, 1e38f, 3.4e38f, -0.0f}, y[] = {1, 1, 1, 1, 1, 1};
    HalfResults results[6];
    ASSERT_EQ(cudaSuccess, (half ? half_ops : bfloat16_ops)(x, y, results, 6));
    const uint16_t infinity = half ? 0x7C00 : 0x7F80;
    EXPECT_EQ(infinity, results[0].x);
    EXPECT_EQ(infinity | 0x8000, results[1].x);
    EXPECT_EQ(0x7FFF, results[2].x);
    EXPECT_EQ(half ? infinity : 0x7E96, results[3].x);
    EXPECT_EQ(infinity, results[4].x);  // rounds up past the largest
    EXPECT_EQ(0x8000, results[5].x);
    EXPECT_TRUE(std::isinf(results[0].x_again) && std::isnan(results[2].x_again));
  }
}

TEST(Instruction, Intrinsics) {
  const std::vector<uint32_t> x = {0, 1, 0x80000000u, kFull, 0x12345678u, 0x00F00000u};
  const std::vector<uint32_t> y = {5, kFull, 3, kFull, 0x9ABCDEF0u, 17};
  std::vector<Intrinsics> results(x.size());
  ASSERT_EQ(cudaSuccess, intrinsics(x.data(), y.data(), results.data(), 6));
  for (size_t i = 0; i < x.size(); ++i) {
    const Intrinsics& r = results[i];
    const uint64_t wide = static_cast<uint64_t>(x[i]) << 32 | y[i];
    const auto count = [](uint64_t bits, int size, auto stop) {
      int n = 0;
      while (n < size && !stop(bits, n)) ++n;
      return n;
    };
    const auto low = [](uint64_t bits, int n) { return (bits >> n & 1) != 0; };
    int ones = 0, wide_ones = 0;
    uint32_t reversed = 0;
    for (int b = 0; b < 32; ++b) {
      ones += x[i] >> b & 1;
      reversed |= (x[i] >> b & 1) << (31 - b);
    }
    for (int b = 0; b < 64; ++b) wide_ones += wide >> b & 1;
    const int zeros = count(x[i], 32, low), wide_zeros = count(wide, 64, low);
    EXPECT_EQ(ones, r.popc);
    EXPECT_EQ(wide_ones, r.popcll);
    EXPECT_EQ(x[i] == 0 ? 0 : zeros + 1, r.ffs);
    EXPECT_EQ(wide == 0 ? 0 : wide_zeros + 1, r.ffsll);
    EXPECT_EQ(count(reversed, 32, low), r.clz);
    EXPECT_EQ(count(wide, 64, [](uint64_t bits, int n) { return (bits >> (63 - n) & 1) != 0; }),
              r.clzll);
    EXPECT_EQ(reversed, r.brev);
    EXPECT_EQ(static_cast<uint32_t>(static_cast<uint64_t>(x[i]) * y[i] >> 32), r.umulhi);
    EXPECT_EQ(static_cast<uint64_t>(static_cast<unsigned __int128>(wide) * wide >> 64), r.umul64hi);
    EXPECT_EQ(static_cast<uint32_t>(wide << 5 >> 32), r.funnel_left);
    EXPECT_EQ(static_cast<uint32_t>(wide >> 5), r.funnel_right);
    EXPECT_EQ(std::min(static_cast<int>(x[i]), static_cast<int>(y[i])), r.int_min);
    EXPECT_EQ(2, r.rounded);  // of 2.5, to even
    EXPECT_EQ(3.0f, r.float_max);
    EXPECT_EQ(1.0f, r.float_bits);
    EXPECT_FLOAT_EQ(0.5f, r.rsqrt);
    EXPECT_FLOAT_EQ(2.7182817f, r.exp);
    EXPECT_FLOAT_EQ(0.6931472f, r.log);
    EXPECT_FLOAT_EQ(8.0f, r.exp2);
  }
}

}  // namespace
}  // namespace simt_testing
