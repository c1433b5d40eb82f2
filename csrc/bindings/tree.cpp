#include "bindings/bindings.h"
#include "core/params/heads.h"
#include "core/token_tree.h"

namespace medusa::bindings {

void register_tree(py::module_& module) {
  module.attr("MAX_NODES") = TokenTree::kMaxNodes;
  module.attr("MAX_HEAD_RANKS") = kMaxHeadRanks;
  py::class_<TokenTree>(module, "TokenTree", "A fixed tree of heads' ranks, breadth first.")
      .def(py::init<std::vector<int32_t>, std::vector<int32_t>>(), py::arg("parents"),
           py::arg("ranks"))
      .def_property_readonly("num_nodes", &TokenTree::num_nodes)
      .def_property_readonly("max_depth", &TokenTree::max_depth)
      .def_property_readonly("parents", &TokenTree::parents)
      .def_property_readonly("ranks", &TokenTree::ranks)
      .def_property_readonly("depth_offsets", &TokenTree::depth_offsets)
      .def("__repr__", [](const TokenTree& tree) {
        return "TokenTree(num_nodes=" + std::to_string(tree.num_nodes()) +
               ", max_depth=" + std::to_string(tree.max_depth()) + ")";
      });
}

}  // namespace medusa::bindings
