// Packs row-major weights into the layout of packed_layout_inl.h.
#pragma once

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

/// 32 weights of one output as integers: w = scale * q + minimum (int8: no minimum).
struct QuantizedGroup {
  Float16 scale{0};
  Float16 minimum{0};
  int q[kGroupSize] = {};
};

/// Symmetric: scale = amax / 127.
inline QuantizedGroup quantize_int8(const float* w, int count) {
  QuantizedGroup out;
  float amax = 0;
  for (int j = 0; j < count; ++j) amax = std::max(amax, std::fabs(w[j]));
  out.scale = from_float<Float16>(amax / 127.0f);
  const float scale = to_float(out.scale);
  for (int j = 0; j < count && scale > 0; ++j) {
    out.q[j] = static_cast<int>(std::clamp(std::nearbyint(w[j] / scale), -127.0f, 127.0f));
  }
  return out;
}

/// The range from the smallest to the largest weight in 15 steps.
inline QuantizedGroup quantize_int4(const float* w, int count) {
  QuantizedGroup out;
  const auto [low, high] = std::minmax_element(w, w + count);
  out.minimum = from_float<Float16>(*low);
  const float minimum = to_float(out.minimum);
  out.scale = from_float<Float16>((*high - minimum) / 15.0f);
  const float scale = to_float(out.scale);
  for (int j = 0; j < count && scale > 0; ++j) {
    out.q[j] = static_cast<int>(std::clamp(std::nearbyint((w[j] - minimum) / scale), 0.0f, 15.0f));
  }
  return out;
}

/// Group g of a source row in int8 or int4; without loss from GGUF blocks of that format.
inline QuantizedGroup source_group(const PackParams& params, const void* row, int64_t g) {
  const WeightFormat& format = params.matrix->format;
  QuantizedGroup out;
  if (format == kInt8Weights && params.source_type == SourceType::kQ8_0) {
    const BlockQ8_0& block = static_cast<const BlockQ8_0*>(row)[g];
    out.scale = block.d;
    std::copy(block.q, block.q + kGroupSize, out.q);
    return out;
  }
  if (format == kInt4Weights && params.source_type == SourceType::kQ4_0) {
    const BlockQ4_0& block = static_cast<const BlockQ4_0*>(row)[g];
    out.scale = block.d;
    out.minimum = from_float<Float16>(-8.0f * to_float(block.d));
    for (int j = 0; j < kGroupSize; ++j) out.q[j] = nibble(block.q, j);
    return out;
  }
  if (format == kInt4Weights && params.source_type == SourceType::kQ4_1) {
    const BlockQ4_1& block = static_cast<const BlockQ4_1*>(row)[g];
    out.scale = block.d;
    out.minimum = block.m;
    for (int j = 0; j < kGroupSize; ++j) out.q[j] = nibble(block.q, j);
    return out;
  }
  const int64_t first = g * kGroupSize;
  const int count =
      static_cast<int>(std::min<int64_t>(kGroupSize, params.matrix->num_inputs - first));
  float w[kGroupSize];
  for (int j = 0; j < count; ++j) w[j] = source_value(params.source_type, row, first + j);
  return format.type == WeightType::kInt8 ? quantize_int8(w, count) : quantize_int4(w, count);
}

inline void write_group(const QuantizedGroup& group, const WeightFormat& format, char* out,
                        int column) {
  Float16* scales = group_scales(out, format);
  scales[column] = group.scale;
  if (format.type == WeightType::kInt8) {
    for (int j = 0; j < kGroupSize; ++j) {
      out[quad_index(j, column)] = static_cast<char>(group.q[j] + kWeightOffset);
    }
    return;
  }
  scales[kPanel + column] = group.minimum;
  for (int j = 0; j < kGroupSize / 2; ++j) {
    out[quad_index(j, column)] = static_cast<char>(group.q[j] | group.q[j + 16] << 4);
  }
}

/// Writes one output's column of a panel; a null row is zeros (padding).
inline void pack_column(const PackParams& params, const void* row, Place place) {
  const PackedMatrix& matrix = *params.matrix;
  char* panel = panel_data(matrix, place.panel);
  if (matrix.format.group > 0) {
    for (int64_t g = 0; g < num_groups(matrix.num_inputs); ++g) {
      write_group(row ? source_group(params, row, g) : QuantizedGroup{}, matrix.format,
                  panel + g * group_bytes(matrix.format), place.column);
    }
    return;
  }
  const WeightType type = matrix.format.type;
  const int64_t padded = type == WeightType::kBFloat16 ? (int64_t{matrix.num_inputs} + 1) / 2 * 2
                                                       : int64_t{matrix.num_inputs};
  for (int64_t k = 0; k < padded; ++k) {
    const int64_t index = float_index(type, k, place.column);
    const float w = row && k < matrix.num_inputs ? source_value(params.source_type, row, k) : 0.0f;
    if (type == WeightType::kFloat32) {
      reinterpret_cast<float*>(panel)[index] = w;
    } else if (type == WeightType::kFloat16) {
      reinterpret_cast<Float16*>(panel)[index] = from_float<Float16>(w);
    } else {
      reinterpret_cast<BFloat16*>(panel)[index] = from_float<BFloat16>(w);
    }
  }
}

/// Columns after the last output (of either half of a gate-up matrix) are zeroed with it.
inline void pack(const PackParams& params) {
  const PackedMatrix& matrix = *params.matrix;
  const int32_t half = matrix.is_gate_up ? matrix.num_outputs / 2 : matrix.num_outputs;
  const int width = matrix.is_gate_up ? kPanel / 2 : kPanel;
  for (int32_t i = 0; i < params.num_rows; ++i) {
    const int32_t output = params.first_output + i;
    Place place = place_of(matrix, output);
    pack_column(params, static_cast<const char*>(params.source) + i * params.source_stride, place);
    if ((output + 1) % half != 0) continue;
    while (++place.column % width != 0) pack_column(params, nullptr, place);
  }
}

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE
