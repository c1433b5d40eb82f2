// The Python module; importing it also registers torch.ops.medusa.*.
#include "bindings/bindings.h"

PYBIND11_MODULE(_C, module) {
  module.doc() = "Native part of medusa_ext: models, heads, sessions and operators.";
  medusa::bindings::register_threads(module);
  medusa::bindings::register_tree(module);
  medusa::bindings::register_model(module);
  medusa::bindings::register_heads(module);
  medusa::bindings::register_session(module);
}
