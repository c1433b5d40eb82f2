#include "model/model.h"

#include <memory>
#include <utility>
#include <vector>

#include "bindings/bindings.h"
#include "bindings/devices.h"
#include "cpu/runtime/isa.h"
#include "model/builder.h"

namespace medusa::bindings {
namespace {

/// Reads a record's fields from the attributes of a Python object that has the same names.
class RecordReader {
 public:
  explicit RecordReader(const py::handle& record) : record_(record) {}

  template <typename T>
  void operator()(const char* name, T& field) const {
    field = record_.attr(name).cast<T>();
  }
  void operator()(const char* name, std::vector<LayerSpec>& layers) const {
    for (const py::handle& layer : record_.attr(name)) {
      visit_fields(layers.emplace_back(), RecordReader(layer));
    }
  }

 private:
  py::handle record_;
};

std::unique_ptr<ModelBuilder> make_builder(const py::object& record,
                                           const std::map<std::string, std::string>& formats,
                                           const std::string& isa, const std::string& device,
                                           bool deterministic) {
  ModelConfig config;
  visit_fields(config, RecordReader(record));
  return std::make_unique<ModelBuilder>(std::move(config), parse_formats(formats),
                                        make_backend(device, {isa, deterministic}));
}

std::map<std::string, std::string> formats_of(const Model& model) {
  std::map<std::string, std::string> formats;
  const auto add = [&](const std::string& name, const Matrix& matrix) {
    formats[name] = weight_format_name(matrix.packed.format);
  };
  add("embed", model.embedding);
  if (!model.config().tied_embeddings) add("lm_head", model.untied_lm_head);
  for (size_t i = 0; i < model.layers.size(); ++i) {
    const LayerWeights& layer = model.layers[i];
    const std::string prefix = "layers." + std::to_string(i) + ".";
    const bool fused = layer.qkv.size() == 1;
    add(prefix + "q", layer.qkv[0].matrix);
    add(prefix + "k", layer.qkv[fused ? 0 : 1].matrix);
    add(prefix + "v", layer.qkv[fused ? 0 : 2].matrix);
    add(prefix + "o", layer.o);
    add(prefix + "gate", layer.gate_up);
    add(prefix + "up", layer.gate_up);
    add(prefix + "down", layer.down);
  }
  return formats;
}

}  // namespace

void register_model(py::module_& module) {
  module.def("available_isas", cpu::available_isas,
             "Instruction sets this machine can run, best first.");
  const std::string isa = cpu::kernel_table().name;  // an unusable MEDUSA_ISA shows here
  module.def(
      "default_isa", [isa] { return isa; }, "The one in use: MEDUSA_ISA's, or else the best.");
  module.def("devices", device_names, "Devices that this build has a backend for.");
  module.def("weight_formats", weight_formats, py::arg("device"),
             "Formats that matrices can have on a device.");
  py::class_<Model, std::shared_ptr<Model>>(module, "Model", "Immutable packed weights.")
      .def_property_readonly("isa",
                             [](const Model& model) { return model.backend().kernels->name; })
      .def_property_readonly("packed_bytes", &Model::packed_bytes)
      .def_property_readonly("formats", formats_of)
      .def_property_readonly("supported_formats", [](const Model& model) {
        return supported_formats(*model.backend().kernels);
      });

  py::class_<ModelBuilder>(module, "ModelBuilder",
                           "Packs weights tensor by tensor, under their canonical names.")
      .def(py::init(&make_builder), py::arg("config"), py::arg("formats"), py::arg("isa") = "",
           py::arg("device") = "cpu", py::arg("deterministic") = false)
      .def(
          "set_rows",
          [](ModelBuilder& builder, const std::string& name, int32_t first_row,
             const std::string& source_type, const py::array& data) {
            const SourceRows rows = parse_rows(name, source_type, data);
            const py::gil_scoped_release release;
            builder.slots().set_rows(name, first_row, rows.type, rows.data, rows.num_rows,
                                     rows.row_bytes);
          },
          py::arg("name"), py::arg("first_row"), py::arg("source_type"), py::arg("data"))
      .def(
          "set_vector",
          [](ModelBuilder& builder, const std::string& name, const FloatArray& data) {
            builder.slots().set_vector(name, data.data(), data.size());
          },
          py::arg("name"), py::arg("data"))
      .def("finish", &ModelBuilder::finish);
}

}  // namespace medusa::bindings
