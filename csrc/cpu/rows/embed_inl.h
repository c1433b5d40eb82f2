// Token embeddings gathered from a packed table, which may double as the lm_head.
#pragma once

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

inline void embed_quantized_row(const PackedMatrix& table, Place place, float* out) {
  const WeightFormat& format = table.format;
  const bool is_int4 = format.type == WeightType::kInt4;
  for (int64_t g = 0; g < num_groups(table.num_inputs); ++g) {
    char* group = panel_data(table, place.panel) + g * group_bytes(format);
    const Float16* scales = group_scales(group, format);
    const float scale = to_float(scales[place.column]);
    const float minimum = format.has_minimum ? to_float(scales[kPanel + place.column]) : 0.0f;
    const auto* bytes = reinterpret_cast<const uint8_t*>(group);
    const int64_t first = g * kGroupSize;
    const int count = static_cast<int>(std::min<int64_t>(kGroupSize, table.num_inputs - first));
    for (int j = 0; j < count; ++j) {
      const uint8_t byte = bytes[quad_index(is_int4 ? j % 16 : j, place.column)];
      const int q =
          is_int4 ? (j < 16 ? byte & 0xf : byte >> 4) : static_cast<int8_t>(byte - kWeightOffset);
      out[first + j] = scale * static_cast<float>(q) + minimum;
    }
  }
}

template <typename W>
inline void embed_float_row(const PackedMatrix& table, Place place, float* out) {
  const W* panel = reinterpret_cast<const W*>(panel_data(table, place.panel));
  for (int64_t k = 0; k < table.num_inputs; ++k) {
    out[k] = to_float(panel[float_index(table.format.type, k, place.column)]);
  }
}

inline void embed(Context& context, const EmbedParams& params) {
  const PackedMatrix& table = *params.table;
  const WeightType type = table.format.type;
  cpu_context(context).parallel_for(params.num_rows, 4, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      const Place place = place_of(table, params.tokens[r]);
      float* out = params.out + r * table.num_inputs;
      if (type == WeightType::kFloat32) {
        embed_float_row<float>(table, place, out);
      } else if (type == WeightType::kBFloat16) {
        embed_float_row<BFloat16>(table, place, out);
      } else if (type == WeightType::kFloat16) {
        embed_float_row<Float16>(table, place, out);
      } else {
        embed_quantized_row(table, place, out);
      }
    }
  });
}

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE
