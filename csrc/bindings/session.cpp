#include "engine/session.h"

#include <map>
#include <memory>
#include <string>
#include <utility>

#include "bindings/bindings.h"

namespace medusa::bindings {
namespace {

/// What the last prefill with keep_hidden left, beside the native session.
struct PySession {
  PySession(const std::shared_ptr<Model>& model, int32_t batch, int32_t max_length,
            int32_t max_nodes, const std::string& kv_dtype, int64_t kv_memory)
      : session(model, batch, max_length, max_nodes, parse_dtype("kv_dtype", kv_dtype), kv_memory) {
    session.set_interrupt([check = make_signal_check()](int32_t /*layer*/) mutable { check(); });
  }

  Session session;
  std::vector<float> prefill_hidden;
};

/// Binds a method: while one thread is in any of a session's, another's call is a RuntimeError.
template <typename R, typename... Args>
auto guarded(R (*method)(PySession&, Args...)) {
  return [method](PySession& self, Args... args) {
    const Session::Busy busy(self.session);
    return method(self, std::forward<Args>(args)...);
  };
}

template <typename R, typename... Args>
auto guarded(R (Session::*method)(Args...)) {
  return [method](PySession& self, Args... args) {
    const Session::Busy busy(self.session);
    return (self.session.*method)(std::forward<Args>(args)...);
  };
}

template <typename R, typename... Args>
auto guarded(R (Session::*method)(Args...) const) {
  return [method](PySession& self, Args... args) {
    const Session::Busy busy(self.session);
    return (self.session.*method)(std::forward<Args>(args)...);
  };
}

/// Runs what takes time; other Python threads go on meanwhile.
template <typename F>
auto compute(Session& session, F&& work) {
  session.set_num_threads(num_threads());
  const py::gil_scoped_release release;
  return work();
}

template <void (Session::*kPhase)()>
void phase(PySession& self) {
  compute(self.session, [&] { (self.session.*kPhase)(); });
}

std::string failure(PySession& self, int32_t b) {
  return compute(self.session, [&] { return self.session.failure(b); });
}

int32_t prefill(PySession& self, int32_t b, const IntArray& tokens, bool keep_hidden) {
  const std::vector<int32_t> ids = parse_ints("tokens", tokens);
  return compute(self.session, [&] {
    return self.session.prefill(b, ids.data(), static_cast<int32_t>(ids.size()),
                                keep_hidden ? &self.prefill_hidden : nullptr);
  });
}

FloatArray prefill_hidden(PySession& self) {
  const int64_t width = self.session.model().config().hidden_size;
  return to_array(self.prefill_hidden,
                  {static_cast<py::ssize_t>(self.prefill_hidden.size()) / width, width});
}

void set_sampling(PySession& self, int32_t b, float temperature, float top_p, int32_t top_k,
                  int64_t seed, const std::string& acceptance, float epsilon, float delta) {
  if (acceptance != "lossless" && acceptance != "typical") {
    throw std::invalid_argument("acceptance: needs \"lossless\" or \"typical\", got \"" +
                                acceptance + "\"");
  }
  const SamplingRule rule = {temperature, top_p, top_k, acceptance == "typical", epsilon, delta};
  self.session.set_sampling(b, rule, static_cast<uint64_t>(seed));
}

void feed(PySession& self, int32_t b, const IntArray& tokens, bool last) {
  self.session.feed(b, parse_ints("tokens", tokens), last);
}

py::tuple tree(PySession& self, int32_t b) {
  const StepTree& tree = self.session.tree(b);
  return py::make_tuple(to_array(tree.tokens()), to_array(tree.parents()));
}

FloatArray path_hidden(PySession& self, int32_t b) {
  FloatArray rows({static_cast<py::ssize_t>(self.session.num_path_rows(b)),
                   static_cast<py::ssize_t>(self.session.model().config().hidden_size)});
  self.session.copy_path_hidden(b, rows.mutable_data());
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
  compute(self.session, [&] { self.session.head_candidates(heads, top_k, &ids, &log_probs); });
  const py::ssize_t num_heads = heads->config.num_heads;
  const py::ssize_t sequences = static_cast<py::ssize_t>(ids.size()) / (num_heads * top_k);
  const std::vector<py::ssize_t> shape = {sequences, num_heads, top_k};
  return py::make_tuple(to_array(ids, shape), to_array(log_probs, shape));
}

FloatArray path_logits(PySession& self, int32_t b) {
  return logits_of(self.session, b, self.session.accepted_path(b));
}

template <int32_t (Session::*kGet)(int32_t) const>
std::vector<int32_t> per_sequence(PySession& self) {
  std::vector<int32_t> values;
  for (int32_t b = 0; b < self.session.batch(); ++b) values.push_back((self.session.*kGet)(b));
  return values;
}

py::array_t<int32_t> text(PySession& self, int32_t b) { return to_array(self.session.text(b)); }

std::map<std::string, double> kernel_seconds(PySession& self) {
  std::map<std::string, double> seconds;
  for (size_t i = 0; i < kNumKernels; ++i) {
    const double taken = self.session.kernel_times().seconds[i];
    if (taken > 0) seconds[kernel_name(i)] = taken;
  }
  return seconds;
}

void set_tree(PySession& self, int32_t b, const IntArray& tokens, const IntArray& parents) {
  self.session.set_tree(b, parse_ints("tokens", tokens), parse_ints("parents", parents));
}

void draft_heads(PySession& self, const std::shared_ptr<Heads>& heads, const TokenTree& tree) {
  compute(self.session, [&] { self.session.draft_heads(heads, tree); });
}

int32_t draft_lookup(PySession& self, int32_t max_nodes, int32_t max_ngram, int32_t min_ngram,
                     int32_t max_branches) {
  const LookupOptions options{max_nodes, max_ngram, min_ngram, max_branches};
  return compute(self.session, [&] { return self.session.draft_lookup(options); });
}

std::vector<int32_t> look_up(PySession& self, int32_t b, int32_t max_nodes, int32_t max_ngram,
                             int32_t min_ngram) {
  return self.session.look_up(b, {max_nodes, max_ngram, min_ngram, 1});
}

void register_sizes(py::class_<PySession>& cls) {
  cls.def_property_readonly("batch", [](const PySession& self) { return self.session.batch(); })
      .def_property_readonly("max_length",
                             [](const PySession& self) { return self.session.max_length(); })
      .def_property_readonly("max_nodes",
                             [](const PySession& self) { return self.session.max_nodes(); });
}

void register_state(py::class_<PySession>& cls) {
  cls.def_property_readonly("lengths", guarded(per_sequence<&Session::length>))
      .def_property_readonly("roots", guarded(per_sequence<&Session::root>))
      .def("text", guarded(text), py::arg("b"))
      .def("tree", guarded(tree), py::arg("b"))
      .def("emitted", guarded(&Session::emitted), py::arg("b"))
      .def("accepted_path", guarded(&Session::accepted_path), py::arg("b"))
      .def("path_hidden", guarded(path_hidden), py::arg("b"))
      .def("prefill_hidden", guarded(prefill_hidden))
      .def("keep_logits", guarded(&Session::keep_logits), py::arg("b"), py::arg("keep"))
      .def("set_profiling", guarded(&Session::set_profiling), py::arg("profiling"))
      .def("kernel_seconds", guarded(kernel_seconds))
      .def("path_logits", guarded(path_logits), py::arg("b"))
      .def("tree_logits", guarded(tree_logits), py::arg("b"))
      .def("prefill_logits", guarded(prefill_logits))
      .def("head_candidates", guarded(head_candidates), py::arg("heads"), py::arg("top_k"));
}

int32_t begin(PySession& self, int32_t b, const IntArray& tokens, int32_t max_tokens) {
  const std::vector<int32_t> ids = parse_ints("tokens", tokens);
  return compute(self.session, [&] { return self.session.begin(b, ids, max_tokens); });
}

bool can_begin(PySession& self, const IntArray& tokens, int32_t max_tokens) {
  return self.session.can_begin(parse_ints("tokens", tokens), max_tokens);
}

py::dict cache_stats(PySession& self) {
  const CacheStats stats = self.session.cache_stats();
  py::dict values;
  values["page_rows"] = kPageRows;
  values["page_bytes"] = stats.page_bytes;
  values["pages"] = stats.num_pages;
  values["pages_free"] = stats.num_free;
  values["pages_idle"] = stats.num_idle;
  values["begins"] = stats.begins;
  values["hits"] = stats.hits;
  values["rows_reused"] = stats.rows_reused;
  return values;
}

void register_cache(py::class_<PySession>& cls) {
  cls.def("begin", guarded(begin), py::arg("b"), py::arg("tokens"), py::arg("max_tokens") = 0)
      .def("can_begin", guarded(can_begin), py::arg("tokens"), py::arg("max_tokens") = 0)
      .def("free", guarded(&Session::free), py::arg("b"))
      .def("cache_stats", guarded(cache_stats));
}

void register_phases(py::class_<PySession>& cls) {
  cls.def("prefill", guarded(prefill), py::arg("b"), py::arg("tokens"), py::kw_only(),
          py::arg("keep_hidden") = false)
      .def("truncate", guarded(&Session::truncate), py::arg("b"), py::arg("length"),
           py::arg("root") = -1)
      .def("set_active", guarded(&Session::set_active), py::arg("sequences"))
      .def("set_end_tokens", guarded(&Session::set_end_tokens), py::arg("b"), py::arg("tokens"))
      .def("set_sampling", guarded(set_sampling), py::arg("b"), py::arg("temperature") = 0.0f,
           py::arg("top_p") = 1.0f, py::arg("top_k") = 0, py::arg("seed") = 0,
           py::arg("acceptance") = "lossless", py::arg("epsilon") = SamplingRule().epsilon,
           py::arg("delta") = SamplingRule().delta)
      .def("begin_step", guarded(&Session::begin_step))
      .def("feed", guarded(feed), py::arg("b"), py::arg("tokens"), py::arg("last"))
      .def("add_node", guarded(&Session::add_node), py::arg("b"), py::arg("parent"),
           py::arg("token"))
      .def("set_tree", guarded(set_tree), py::arg("b"), py::arg("tokens"), py::arg("parents"))
      .def("draft_for", guarded(&Session::draft_for), py::arg("sequences"))
      .def("draft_heads", guarded(draft_heads), py::arg("heads"), py::arg("tree"))
      .def("draft_lookup", guarded(draft_lookup), py::arg("max_nodes"), py::arg("max_ngram"),
           py::arg("min_ngram"), py::arg("max_branches"))
      .def("look_up", guarded(look_up), py::arg("b"), py::arg("max_nodes"), py::arg("max_ngram"),
           py::arg("min_ngram"))
      .def("verify", guarded(phase<&Session::verify>))
      .def("accept", guarded(phase<&Session::accept>))
      .def("failure", guarded(failure), py::arg("b"))
      .def("check_finite", guarded(phase<&Session::check_finite>))
      .def("compact", guarded(phase<&Session::compact>));
}

}  // namespace

void register_session(py::module_& module) {
  py::class_<PySession> cls(module, "Session", "A KV cache and the state of B sequences.");
  cls.def(py::init<const std::shared_ptr<Model>&, int32_t, int32_t, int32_t, const std::string&,
                   int64_t>(),
          py::arg("model"), py::arg("batch"), py::arg("max_length"), py::arg("max_nodes"),
          py::arg("kv_dtype") = "float32", py::arg("kv_memory") = 0);
  register_sizes(cls);
  register_state(cls);
  register_cache(cls);
  register_phases(cls);
}

}  // namespace medusa::bindings
