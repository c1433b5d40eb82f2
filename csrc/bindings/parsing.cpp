#include "bindings/bindings.h"

namespace medusa::bindings {

DType parse_dtype(const std::string& argument, const std::string& name) {
  for (int i = 0; i < kNumDTypes; ++i) {
    if (name == dtype_name(static_cast<DType>(i))) return static_cast<DType>(i);
  }
  throw std::invalid_argument(
      argument + ": needs \"float32\", \"bfloat16\", \"float16\", \"int8\" or \"int4\", got \"" +
      name + "\"");
}

std::map<std::string, DType> parse_formats(const std::map<std::string, std::string>& formats) {
  std::map<std::string, DType> parsed;
  for (const auto& [name, format] : formats) parsed[name] = parse_dtype("formats: " + name, format);
  return parsed;
}

SourceRows parse_rows(const std::string& name, const std::string& source_type,
                      const py::array& data) {
  static const std::map<std::string, SourceType> kTypes = {
      {"float32", SourceType::kFloat32}, {"bfloat16", SourceType::kBFloat16},
      {"float16", SourceType::kFloat16}, {"q8_0", SourceType::kQ8_0},
      {"q4_0", SourceType::kQ4_0},       {"q4_1", SourceType::kQ4_1}};
  const auto found = kTypes.find(source_type);
  if (found == kTypes.end()) {
    throw std::invalid_argument(name +
                                ": source_type, needs float32, bfloat16, float16, q8_0, q4_0 or "
                                "q4_1, got " +
                                source_type);
  }
  if (data.ndim() != 2 || !(data.flags() & py::array::c_style)) {
    throw std::invalid_argument(name + ": data, needs a C-contiguous array of 2 dimensions, got " +
                                std::to_string(data.ndim()));
  }
  SourceRows rows;
  rows.type = found->second;
  rows.data = data.data();
  rows.num_rows = static_cast<int32_t>(data.shape(0));
  rows.row_bytes = data.shape(1) * data.itemsize();
  return rows;
}

std::vector<int32_t> parse_ints(const std::string& argument, const IntArray& array) {
  if (array.ndim() != 1) {
    throw std::invalid_argument(argument + ": needs one dimension, got " +
                                std::to_string(array.ndim()));
  }
  return std::vector<int32_t>(array.data(), array.data() + array.size());
}

}  // namespace medusa::bindings
