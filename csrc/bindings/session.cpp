#include "engine/session.h"

#include <memory>
#include <utility>

#include "bindings/bindings.h"

namespace medusa::bindings {
namespace {

/// Runs one phase: no other thread may use the session meanwhile, and Python may go on.
template <typename F>
auto exclusively(Session& session, F&& phase) {
  const Session::Busy busy(session);
  session.set_num_threads(num_threads());
  const py::gil_scoped_release release;
  return phase();
}

/// What the last prefill with keep_hidden left, beside the native session.
struct PySession {
  PySession(const std::shared_ptr<Model>& model, int32_t batch, int32_t max_length,
            int32_t max_nodes, const std::string& kv_dtype)
      : session(model, batch, max_length, max_nodes, parse_dtype("kv_dtype", kv_dtype)) {}

  Session session;
  std::vector<float> prefill_hidden;
};

int32_t prefill(PySession& self, int32_t b, const IntArray& tokens, bool keep_hidden) {
  const std::vector<int32_t> ids = parse_ints("tokens", tokens);
  return exclusively(self.session, [&] {
    return self.session.prefill(b, ids.data(), static_cast<int32_t>(ids.size()),
                                keep_hidden ? &self.prefill_hidden : nullptr);
  });
}

FloatArray prefill_hidden(const PySession& self) {
  const int64_t width = self.session.model().config().hidden_size;
  return to_array(self.prefill_hidden,
                  {static_cast<py::ssize_t>(self.prefill_hidden.size()) / width, width});
}

void set_sampling(PySession& self, float temperature, float top_p, int32_t top_k,
                  const std::optional<std::vector<int64_t>>& seeds, const std::string& acceptance,
                  float epsilon, float delta) {
  if (acceptance != "lossless" && acceptance != "typical") {
    throw std::invalid_argument("acceptance: needs \"lossless\" or \"typical\", got \"" +
                                acceptance + "\"");
  }
  Sampling sampling;
  sampling.temperature = temperature;
  sampling.top_p = top_p;
  sampling.top_k = top_k;
  sampling.typical = acceptance == "typical";
  sampling.epsilon = epsilon;
  sampling.delta = delta;
  sampling.seeds.resize(static_cast<size_t>(self.session.batch()));
  if (seeds) sampling.seeds.assign(seeds->begin(), seeds->end());
  self.session.set_sampling(std::move(sampling));
}

py::tuple tree(const PySession& self, int32_t b) {
  const StepTree& tree = self.session.tree(b);
  return py::make_tuple(to_array(tree.tokens()), to_array(tree.parents()));
}

FloatArray path_hidden(PySession& self, int32_t b) {
  const std::vector<int32_t>& path = self.session.accepted_path(b);
  const int64_t width = self.session.model().config().hidden_size;
  FloatArray rows({static_cast<py::ssize_t>(path.size()), static_cast<py::ssize_t>(width)});
  for (size_t i = 0; i < path.size(); ++i) {
    self.session.copy_hidden(b, path[i], rows.mutable_data() + static_cast<int64_t>(i) * width);
  }
  return rows;
}

FloatArray logits_of(Session& session, int32_t b, const std::vector<int32_t>& nodes) {
  const int64_t width = session.model().config().vocab_size;
  FloatArray rows({static_cast<py::ssize_t>(nodes.size()), static_cast<py::ssize_t>(width)});
  for (size_t i = 0; i < nodes.size(); ++i) {
    session.copy_logits(b, nodes[i], rows.mutable_data() + static_cast<int64_t>(i) * width);
  }
  return rows;
}

FloatArray tree_logits(PySession& self, int32_t b) {
  std::vector<int32_t> nodes(static_cast<size_t>(self.session.tree(b).num_nodes()));
  for (size_t i = 0; i < nodes.size(); ++i) nodes[i] = static_cast<int32_t>(i);
  return logits_of(self.session, b, nodes);
}

FloatArray prefill_logits(PySession& self) {
  FloatArray row(self.session.model().config().vocab_size);
  self.session.copy_prefill_logits(row.mutable_data());
  return row;
}

py::tuple head_candidates(PySession& self, const std::shared_ptr<Heads>& heads, int32_t top_k) {
  std::vector<int32_t> ids;
  std::vector<float> log_probs;
  exclusively(self.session, [&] { self.session.head_candidates(heads, top_k, &ids, &log_probs); });
  const py::ssize_t num_heads = heads->config.num_heads;
  const py::ssize_t sequences = static_cast<py::ssize_t>(ids.size()) / (num_heads * top_k);
  const std::vector<py::ssize_t> shape = {sequences, num_heads, top_k};
  return py::make_tuple(to_array(ids, shape), to_array(log_probs, shape));
}

template <typename T>
std::vector<T> per_sequence(const Session& session, T (Session::*get)(int32_t) const) {
  std::vector<T> values;
  for (int32_t b = 0; b < session.batch(); ++b) values.push_back((session.*get)(b));
  return values;
}

void register_state(py::class_<PySession>& cls) {
  cls.def_property_readonly("batch", [](const PySession& self) { return self.session.batch(); })
      .def_property_readonly("max_length",
                             [](const PySession& self) { return self.session.max_length(); })
      .def_property_readonly("max_nodes",
                             [](const PySession& self) { return self.session.max_nodes(); })
      .def_property_readonly(
          "lengths",
          [](const PySession& self) { return per_sequence(self.session, &Session::length); })
      .def_property_readonly(
          "roots", [](const PySession& self) { return per_sequence(self.session, &Session::root); })
      .def("text", [](const PySession& self, int32_t b) { return to_array(self.session.text(b)); })
      .def("tree", tree, py::arg("b"))
      .def("emitted", [](const PySession& self, int32_t b) { return self.session.emitted(b); })
      .def("accepted_path",
           [](const PySession& self, int32_t b) { return self.session.accepted_path(b); })
      .def("path_hidden", path_hidden, py::arg("b"))
      .def("prefill_hidden", prefill_hidden)
      .def("keep_logits", [](PySession& self, bool keep) { self.session.keep_logits(keep); })
      .def("set_profiling",
           [](PySession& self, bool profiling) {
             const Session::Busy busy(self.session);
             self.session.set_profiling(profiling);
           })
      .def("path_logits",
           [](PySession& self, int32_t b) {
             return logits_of(self.session, b, self.session.accepted_path(b));
           })
      .def("tree_logits", tree_logits, py::arg("b"))
      .def("prefill_logits", prefill_logits)
      .def("head_candidates", head_candidates, py::arg("heads"), py::arg("top_k"));
}

void register_phases(py::class_<PySession>& cls) {
  cls.def("prefill", prefill, py::arg("b"), py::arg("tokens"), py::kw_only(),
          py::arg("keep_hidden") = false)
      .def(
          "truncate",
          [](PySession& self, int32_t b, int32_t length, int32_t root) {
            const Session::Busy busy(self.session);
            self.session.truncate(b, length, root);
          },
          py::arg("b"), py::arg("length"), py::arg("root") = -1)
      .def("set_active",
           [](PySession& self, const std::vector<int32_t>& sequences) {
             self.session.set_active(sequences);
           })
      .def(
          "set_end_tokens",
          [](PySession& self, std::vector<int32_t> tokens) {
            const Session::Busy busy(self.session);
            self.session.set_end_tokens(std::move(tokens));
          },
          py::arg("tokens"))
      .def("set_sampling", set_sampling, py::arg("temperature") = 0.0f, py::arg("top_p") = 1.0f,
           py::arg("top_k") = 0, py::arg("seeds") = py::none(), py::arg("acceptance") = "lossless",
           py::arg("epsilon") = 0.09f, py::arg("delta") = 0.3f)
      .def("begin_step",
           [](PySession& self) {
             const Session::Busy busy(self.session);
             self.session.begin_step();
           })
      .def(
          "add_node",
          [](PySession& self, int32_t b, int32_t parent, int32_t token) {
            return self.session.add_node(b, parent, token);
          },
          py::arg("b"), py::arg("parent"), py::arg("token"))
      .def(
          "set_tree",
          [](PySession& self, int32_t b, const IntArray& tokens, const IntArray& parents) {
            self.session.set_tree(b, parse_ints("tokens", tokens), parse_ints("parents", parents));
          },
          py::arg("b"), py::arg("tokens"), py::arg("parents"))
      .def(
          "draft_heads",
          [](PySession& self, const std::shared_ptr<Heads>& heads, const TokenTree& tree) {
            exclusively(self.session, [&] { self.session.draft_heads(heads, tree); });
          },
          py::arg("heads"), py::arg("tree"))
      .def(
          "draft_lookup",
          [](PySession& self, int32_t max_nodes, int32_t max_ngram, int32_t min_ngram,
             int32_t max_branches) {
            const LookupOptions options{max_nodes, max_ngram, min_ngram, max_branches};
            return exclusively(self.session, [&] { return self.session.draft_lookup(options); });
          },
          py::arg("max_nodes"), py::arg("max_ngram"), py::arg("min_ngram"), py::arg("max_branches"))
      .def("verify",
           [](PySession& self) { exclusively(self.session, [&] { self.session.verify(); }); })
      .def("accept",
           [](PySession& self) { exclusively(self.session, [&] { self.session.accept(); }); })
      .def("compact",
           [](PySession& self) { exclusively(self.session, [&] { self.session.compact(); }); });
}

}  // namespace

void register_session(py::module_& module) {
  py::class_<PySession> cls(module, "Session", "A KV cache and the state of B sequences.");
  cls.def(py::init<const std::shared_ptr<Model>&, int32_t, int32_t, int32_t, const std::string&>(),
          py::arg("model"), py::arg("batch"), py::arg("max_length"), py::arg("max_nodes"),
          py::arg("kv_dtype") = "float32");
  register_state(cls);
  register_phases(cls);
}

}  // namespace medusa::bindings
