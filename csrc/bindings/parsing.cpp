#include "bindings/bindings.h"
#include "core/checks.h"

namespace medusa::bindings {

DType parse_dtype(const std::string& argument, const std::string& name) {
  for (int i = 0; i < kNumDTypes; ++i) {
    if (name == dtype_name(static_cast<DType>(i))) return static_cast<DType>(i);
  }
  fail(argument, R"("float32", "bfloat16", "float16" or "int8")", '"' + name + '"');
}

WeightFormat parse_format(const std::string& argument, const std::string& name) {
  if (const WeightFormat* format = find_weight_format(name.c_str())) return *format;
  fail(argument, R"("float32", "bfloat16", "float16", "int8" or "int4")", '"' + name + '"');
}

std::map<std::string, WeightFormat> parse_formats(
    const std::map<std::string, std::string>& formats) {
  std::map<std::string, WeightFormat> parsed;
  for (const auto& [name, format] : formats) {
    parsed[name] = parse_format("formats: " + name, format);
  }
  return parsed;
}

SourceRows parse_rows(const std::string& name, const std::string& source_type,
                      const py::array& data) {
  const NamedSourceType* type = find_source_type(source_type.c_str());
  if (type == nullptr) {
    fail(name + ": source_type", "F32, BF16, F16, Q8_0, Q4_0 or Q4_1", source_type);
  }
  if (data.ndim() != 2 || !(data.flags() & py::array::c_style)) {
    throw std::invalid_argument(name + ": data, needs a C-contiguous array of 2 dimensions, got " +
                                std::to_string(data.ndim()));
  }
  SourceRows rows;
  rows.type = type->type;
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
