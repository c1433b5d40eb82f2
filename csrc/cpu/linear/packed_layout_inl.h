// How weights [N, K] are laid out: panels of kPanel outputs, one after the other; inside a panel
// the inputs follow each other, and for each the panel's outputs. A kernel streams a panel from
// front to back and never sums across lanes.
//
//   float32, float16  [panel][K][kPanel]
//   bfloat16          [panel][K/2][kPanel][2]: one 32-bit word holds two inputs of an output, and a
//                     shift or a mask makes either a float32; K is padded to even
//   int8              [panel][group]{[8][kPanel][4] int8, [kPanel] float16 scale}: four inputs of
//                     an output are together, as the integer dot products read them; some
//                     instruction sets store them with kWeightOffset added
//   int4              [panel][group]{[4][kPanel][4] byte, [kPanel] float16 scale, [kPanel] float16
//                     minimum}: inputs 0 … 15 of the group in the low halves, 16 … 31 in the high
//
// N is padded to whole panels and K to whole groups with zeros. An `is_gate_up` matrix has gate
// rows in the first half of each panel and their up rows in the second.
#pragma once

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

constexpr int kPanel = kPanelVecs * Vec::kSize;

/// Where an output is.
struct Place {
  int64_t panel;
  int column;
};

inline Place place_of(const PackedMatrix& matrix, int64_t output) {
  if (!matrix.is_gate_up) return {output / kPanel, static_cast<int>(output % kPanel)};
  constexpr int kHalf = kPanel / 2;
  const int64_t size = matrix.num_outputs / 2;
  const bool is_up = output >= size;
  const int64_t index = output - (is_up ? size : 0);
  return {index / kHalf, static_cast<int>(index % kHalf) + (is_up ? kHalf : 0)};
}

inline int64_t num_panels(int32_t num_outputs) { return (num_outputs + kPanel - 1) / kPanel; }

/// Bytes that the weights of one group of 32 inputs take in a panel of a quantised format.
constexpr int64_t group_weight_bytes(const WeightFormat& format) {
  return kPanel * format.group / (format.type == WeightType::kInt4 ? 2 : 1);
}

/// With the group's scales, and its minima where the format has them.
constexpr int64_t group_bytes(const WeightFormat& format) {
  return group_weight_bytes(format) +
         kPanel * int64_t{sizeof(Float16)} * (format.has_minimum ? 2 : 1);
}

inline int64_t panel_bytes(const WeightFormat& format, int32_t num_inputs) {
  switch (format.type) {
    case WeightType::kFloat32:
      return int64_t{num_inputs} * kPanel * 4;
    case WeightType::kFloat16:
      return int64_t{num_inputs} * kPanel * 2;
    case WeightType::kBFloat16:
      return (int64_t{num_inputs} + 1) / 2 * kPanel * 4;
    case WeightType::kInt8:
    case WeightType::kInt4:
      break;
  }
  return num_groups(num_inputs) * group_bytes(format);
}

inline int64_t packed_bytes(const WeightFormat& format, int32_t num_outputs, int32_t num_inputs) {
  return num_panels(num_outputs) * panel_bytes(format, num_inputs);
}

inline char* panel_data(const PackedMatrix& matrix, int64_t panel) {
  return static_cast<char*>(matrix.data) + panel * panel_bytes(matrix.format, matrix.num_inputs);
}

/// Element index of input k of a column in a 16-bit or 32-bit panel.
inline int64_t float_index(WeightType type, int64_t k, int column) {
  return type == WeightType::kBFloat16 ? (k / 2 * kPanel + column) * 2 + k % 2
                                       : k * kPanel + column;
}

/// Byte of input j (0 … 31) of a column in an int8 group, and in an int4 group for j < 16.
inline int64_t quad_index(int j, int column) { return (j / 4 * kPanel + column) * 4 + j % 4; }

/// The scales after a group's weights; a group's minima are kPanel further.
inline const Float16* group_scales(const char* group, const WeightFormat& format) {
  return reinterpret_cast<const Float16*>(group + group_weight_bytes(format));
}
inline Float16* group_scales(char* group, const WeightFormat& format) {
  return const_cast<Float16*>(group_scales(static_cast<const char*>(group), format));
}

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE
