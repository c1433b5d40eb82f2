#include "bindings/bindings.h"
#include "core/token_tree.h"

namespace medusa::bindings {

void register_tree(py::module_& module) {
  py::class_<TokenTree>(module, "TokenTree",
                        "A tree of draft nodes: node 0 is the root, parents before children.")
      .def_static("from_paths", &TokenTree::from_paths, py::arg("paths"), py::arg("num_heads"),
                  py::arg("top_k"),
                  "The tree of rank paths, every prefix among them; breadth first.")
      .def_static("from_parents", &TokenTree::from_parents, py::arg("parents"),
                  "The tree of given parents, -1 for node 0; ranks count siblings.")
      .def_property_readonly("num_nodes", &TokenTree::num_nodes)
      .def_property_readonly("max_path", &TokenTree::max_path)
      .def_property_readonly("parents", &TokenTree::parents)
      .def_property_readonly("depths", &TokenTree::depths)
      .def_property_readonly("ranks", &TokenTree::ranks)
      .def("paths", &TokenTree::paths)
      .def("__repr__", [](const TokenTree& tree) {
        return "TokenTree(num_nodes=" + std::to_string(tree.num_nodes()) +
               ", max_path=" + std::to_string(tree.max_path()) + ")";
      });
}

}  // namespace medusa::bindings
