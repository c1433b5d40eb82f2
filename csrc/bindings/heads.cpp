#include "model/heads.h"

#include <memory>
#include <optional>

#include "bindings/bindings.h"
#include "model/builder.h"

namespace medusa::bindings {
namespace {

HeadsConfig::LmHead parse_lm_head(const std::string& name) {
  if (name == "base") return HeadsConfig::LmHead::kBase;
  if (name == "shared") return HeadsConfig::LmHead::kShared;
  if (name == "own") return HeadsConfig::LmHead::kOwn;
  throw std::invalid_argument("lm_head: needs \"base\", \"shared\" or \"own\", got \"" + name +
                              "\"");
}

std::unique_ptr<HeadsBuilder> make_builder(const std::shared_ptr<Model>& model, int32_t num_heads,
                                           int32_t num_layers, const std::string& kind,
                                           const std::string& lm_head,
                                           const std::string& block_format,
                                           const std::string& lm_head_format,
                                           const std::optional<IntArray>& token_map) {
  if (kind != "medusa" && kind != "root") {
    throw std::invalid_argument("kind: needs \"medusa\" or \"root\", got \"" + kind + "\"");
  }
  HeadsConfig config;
  config.num_heads = num_heads;
  config.num_layers = num_layers;
  config.root_conditioned = kind == "root";
  config.lm_head = parse_lm_head(lm_head);
  if (token_map) config.token_map = parse_ints("token_map", *token_map);
  return std::make_unique<HeadsBuilder>(model, std::move(config),
                                        parse_format("block_format", block_format),
                                        parse_format("lm_head_format", lm_head_format));
}

std::map<std::string, std::string> formats_of(const Heads& heads) {
  return {{"blocks", weight_format_name(heads.first_block.packed.format)},
          {"lm_head", weight_format_name(heads.lm_head(0).format)}};
}

}  // namespace

void register_heads(py::module_& module) {
  py::class_<Heads, std::shared_ptr<Heads>>(module, "Heads", "Immutable Medusa heads of a model.")
      .def_property_readonly("num_heads", [](const Heads& heads) { return heads.config.num_heads; })
      .def_property_readonly("num_layers",
                             [](const Heads& heads) { return heads.config.num_layers; })
      .def_property_readonly(
          "kind",
          [](const Heads& heads) { return heads.config.root_conditioned ? "root" : "medusa"; })
      .def_property_readonly("draft_vocab_size",
                             [](const Heads& heads) { return heads.config.draft_vocab_size; })
      .def_property_readonly("packed_bytes", &Heads::packed_bytes)
      .def_property_readonly("formats", formats_of);

  py::class_<HeadsBuilder>(module, "HeadsBuilder", "Packs Medusa heads tensor by tensor.")
      .def(py::init(&make_builder), py::arg("model"), py::arg("num_heads"), py::arg("num_layers"),
           py::arg("kind"), py::arg("lm_head"), py::arg("block_format") = "float32",
           py::arg("lm_head_format") = "float32", py::arg("token_map") = py::none())
      .def(
          "set_rows",
          [](HeadsBuilder& builder, const std::string& name, int32_t first_row,
             const std::string& source_type, const py::array& data) {
            const SourceRows rows = parse_rows(name, source_type, data);
            const py::gil_scoped_release release;
            builder.slots().set_rows(name, first_row, rows.type, rows.data, rows.num_rows,
                                     rows.row_bytes);
          },
          py::arg("name"), py::arg("first_row"), py::arg("source_type"), py::arg("data"))
      .def(
          "set_vector",
          [](HeadsBuilder& builder, const std::string& name, const FloatArray& data) {
            builder.slots().set_vector(name, data.data(), data.size());
          },
          py::arg("name"), py::arg("data"))
      .def("finish", &HeadsBuilder::finish);
}

}  // namespace medusa::bindings
