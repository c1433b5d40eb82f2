// The operators' Python module: importing it registers torch.ops.medusa.*.
#include <pybind11/pybind11.h>

PYBIND11_MODULE(_torch, module) {
  module.doc() = "Native part of medusa_ext.ops; its functions are in torch.ops.medusa.";
}
