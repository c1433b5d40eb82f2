// The pieces of the Python module, one function per file.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/dtype.h"
#include "core/source_type.h"
#include "core/weight_format.h"

namespace medusa::bindings {

namespace py = pybind11;

using IntArray = py::array_t<int32_t, py::array::c_style | py::array::forcecast>;
using FloatArray = py::array_t<float, py::array::c_style>;

void register_tree(py::module_& module);
void register_model(py::module_& module);
void register_heads(py::module_& module);
void register_session(py::module_& module);
void register_threads(py::module_& module);

/// A function for work without the GIL to call again and again: now and then it lets Python handle
/// its signals, if it is called on Python's main thread, and throws what a handler raises, of
/// Ctrl-C KeyboardInterrupt. To be made with the GIL held.
std::function<void()> make_signal_check();

/// Threads of the forwards: set_num_threads; until that is called torch's number where torch is
/// imported, and else the one torch would start with. Needs the GIL.
int num_threads();

/// "float32" | "bfloat16" | "float16" | "int8"; ValueError naming `argument` otherwise.
DType parse_dtype(const std::string& argument, const std::string& name);

/// The names of core/weight_format.h; ValueError naming `argument` otherwise.
WeightFormat parse_format(const std::string& argument, const std::string& name);
std::map<std::string, WeightFormat> parse_formats(
    const std::map<std::string, std::string>& formats);

/// A loader's rows: a 2-D C-contiguous array, and what its bytes mean.
struct SourceRows {
  SourceType type;
  const void* data;
  int32_t num_rows;
  int64_t row_bytes;
};
SourceRows parse_rows(const std::string& name, const std::string& source_type,
                      const py::array& data);

template <typename T>
py::array_t<T> to_array(const std::vector<T>& values, std::vector<py::ssize_t> shape) {
  py::array_t<T> array(std::move(shape));
  std::copy(values.begin(), values.end(), array.mutable_data());
  return array;
}

inline py::array_t<int32_t> to_array(const std::vector<int32_t>& values) {
  return to_array(values, {static_cast<py::ssize_t>(values.size())});
}

/// A one-dimensional array of integers, checked.
std::vector<int32_t> parse_ints(const std::string& argument, const IntArray& array);

}  // namespace medusa::bindings
