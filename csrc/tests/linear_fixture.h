// Random matrices, their packed forms and float64 products, for the tests of csrc/cpu.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "core/gguf_blocks.h"
#include "cpu/linear/activations.h"
#include "cpu/runtime/context.h"
#include "cpu/runtime/isa.h"
#include "tests/kernels_under_test.h"

namespace medusa::cpu {

/// 64-byte aligned bytes, filled with a pattern that is no valid data.
class AlignedBytes {
 public:
  explicit AlignedBytes(int64_t size)
      : size_(size), data_(::operator new(static_cast<size_t>(size), std::align_val_t{64})) {
    std::memset(data_.get(), 0xcd, static_cast<size_t>(size));
  }
  void* data() const { return data_.get(); }
  int64_t size() const { return size_; }

 private:
  struct Delete {
    void operator()(void* data) const { ::operator delete(data, std::align_val_t{64}); }
  };
  int64_t size_;
  std::unique_ptr<void, Delete> data_;
};

inline std::vector<float> random_floats(int64_t count, uint32_t seed, float scale = 1.0f) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> out(static_cast<size_t>(count));
  for (float& x : out) x = normal(generator);
  return out;
}

/// Source rows [N, K] of any type, in bytes; GGUF blocks have random scales and quants.
struct Source {
  SourceType type;
  int32_t num_rows;
  int32_t width;
  int64_t row_bytes;
  std::vector<char> bytes;

  const void* row(int64_t n) const { return bytes.data() + n * row_bytes; }
};

inline Source random_source(SourceType type, int32_t num_rows, int32_t width, uint32_t seed) {
  Source out{type, num_rows, width, source_row_bytes(type, width), {}};
  out.bytes.resize(static_cast<size_t>(num_rows * out.row_bytes));
  const auto fill = [&](auto* p) {
    using T = std::remove_pointer_t<decltype(p)>;
    const std::vector<float> values = random_floats(int64_t{num_rows} * width, seed, 0.05f);
    std::transform(values.begin(), values.end(), p, from_float<T>);
  };
  if (type == SourceType::kFloat32) fill(reinterpret_cast<float*>(out.bytes.data()));
  if (type == SourceType::kBFloat16) fill(reinterpret_cast<BFloat16*>(out.bytes.data()));
  if (type == SourceType::kFloat16) fill(reinterpret_cast<Float16*>(out.bytes.data()));
  if (type < SourceType::kQ8_0) return out;
  std::mt19937 generator(seed);
  for (char& byte : out.bytes) byte = static_cast<char>(generator());
  const int64_t blocks = int64_t{num_rows} * (width / 32);
  const int64_t block_bytes = out.row_bytes / std::max(width / 32, 1);
  std::uniform_real_distribution<float> scale(-0.01f, 0.01f);
  for (int64_t b = 0; b < blocks; ++b) {
    auto* scales = reinterpret_cast<Float16*>(out.bytes.data() + b * block_bytes);
    scales[0] = from_float<Float16>(scale(generator));
    if (type == SourceType::kQ4_1) scales[1] = from_float<Float16>(scale(generator));
  }
  return out;
}

/// A packed matrix and the memory it is in.
struct Packed {
  PackedMatrix matrix;
  AlignedBytes bytes;

  Packed(const KernelTable& table, const WeightFormat& format, const Source& source,
         bool is_gate_up = false)
      : bytes(table.packed_bytes(format, source.num_rows, source.width)) {
    matrix.format = format;
    matrix.num_outputs = source.num_rows;
    matrix.num_inputs = source.width;
    matrix.is_gate_up = is_gate_up;
    matrix.data = bytes.data();
    matrix.bytes = bytes.size();
    // In two pieces, as fused q, k and v rows are.
    const int32_t first = source.num_rows / 3;
    for (const auto& [begin, end] : {std::pair{0, first}, std::pair{first, source.num_rows}}) {
      PackParams params;
      params.matrix = &matrix;
      params.source_type = source.type;
      params.source = source.row(begin);
      params.source_stride = source.row_bytes;
      params.first_output = begin;
      params.num_rows = end - begin;
      table.pack(params);
    }
  }
};

/// Activations [R, K] made by the table's quantize.
struct Rows {
  Activations activations;
  AlignedBytes bytes;

  Rows(const KernelTable& table, const ActivationFormat& format, int32_t num_rows, int32_t width)
      : bytes(table.activation_bytes(format, num_rows, width)) {
    activations.format = format;
    activations.width = width;
    activations.data = bytes.data();
  }

  Rows(const KernelTable& table, Context& context, const WeightFormat& weight_format,
       const float* x, int32_t num_rows, int32_t width)
      : Rows(table, table.activation_format(weight_format), num_rows, width) {
    QuantizeParams params;
    params.num_rows = num_rows;
    params.width = width;
    params.x = x;
    params.out = activations;
    table.quantize(context, params);
  }

  /// Element k of a row as the kernels see it.
  double value(int64_t row, int64_t k) const {
    if (activations.format == kFloatActivations) return float_row(activations, row)[k];
    const Int8Row r = int8_row(activations, row);
    return static_cast<double>(r.values[k]) * r.scales[k / kGroupSize];
  }
};

/// Weight [n, k] as `format` keeps it; int8 and int4 only for sources they hold without loss.
inline double kept_weight(const WeightFormat& format, const Source& source, int64_t n, int64_t k) {
  const float w = source_value(source.type, source.row(n), k);
  if (format == kBFloat16Weights) return to_float(from_float<BFloat16>(w));
  if (format == kFloat16Weights) return to_float(from_float<Float16>(w));
  return w;
}

struct Product {
  double value = 0;
  double magnitude = 0;  // sum of |x * w|: what rounding errors are relative to
};

inline Product reference_product(const WeightFormat& format, const Source& source, const Rows& x,
                                 int64_t row, int64_t n) {
  Product out;
  for (int64_t k = 0; k < source.width; ++k) {
    const double product = kept_weight(format, source, n, k) * x.value(row, k);
    out.value += product;
    out.magnitude += std::fabs(product);
  }
  return out;
}

}  // namespace medusa::cpu
