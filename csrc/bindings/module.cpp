// The engine's Python module. It knows nothing of torch: the operators are a module of their own.
#include "bindings/bindings.h"

PYBIND11_MODULE(_C, module) {
  module.doc() = "Native part of medusa_ext: models, heads and sessions.";
  medusa::bindings::register_threads(module);
  medusa::bindings::register_tree(module);
  medusa::bindings::register_model(module);
  medusa::bindings::register_heads(module);
  medusa::bindings::register_session(module);
}
