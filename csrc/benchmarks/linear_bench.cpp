// Matrix products on the CPU: single products and whole forwards (the products alone) of SmolLM2,
// Llama-7B and Llama-3-8B by format and rows, with GB/s of weights read and GOP/s.
//
//   MEDUSA_NUM_THREADS=2 MEDUSA_ISA=avx512 linear_bench --benchmark_filter=forward/smollm2
#include <map>
#include <memory>

#include "benchmarks/benchmark_common.h"
#include "benchmarks/peaks.h"
#include "cpu/linear/activations.h"

namespace medusa::cpu {
namespace {

struct Shape {
  const char* name;
  int32_t num_outputs, num_inputs;
  Epilogue epilogue;
};

/// The products of a layer.
std::vector<Shape> layer_shapes(const ModelSizes& model) {
  const int32_t hidden = model.hidden_size, mixed = model.num_query_heads * model.head_size;
  return {{"qkv", model.qkv_width(), hidden, Epilogue::kStore},
          {"o", hidden, mixed, Epilogue::kAdd},
          {"gate_up", 2 * model.ffn_size, hidden, Epilogue::kSiluMul},
          {"down", hidden, model.ffn_size, Epilogue::kAdd}};
}

/// Inputs and outputs of all products of a benchmark, reused as a decoder does.
struct Buffers {
  Buffers(const WeightFormat& format, int32_t rows)
      : format(format),
        rows(rows),
        out(int64_t{rows} * kMaxStored * 4),
        argmax(static_cast<size_t>(rows)) {}

  /// Activations of all products of that many inputs.
  Activations in(int32_t width) {
    const ActivationFormat activations = table().activation_format(format);
    auto& pages = in_by_width[width];
    if (!pages) pages = std::make_unique<Pages>(table().activation_bytes(activations, rows, width));
    return {activations, width, pages->data()};
  }

  static constexpr int32_t kMaxStored = 14336;
  WeightFormat format;
  int32_t rows;
  Pages out;
  std::vector<int32_t> argmax;
  std::map<int32_t, std::unique_ptr<Pages>> in_by_width;
};

/// One product; its weights are packed to `weights`.
class Product {
 public:
  Product(const Shape& shape, const WeightFormat& format, char* weights, Buffers& buffers) {
    matrix_.format = format;
    matrix_.num_outputs = shape.num_outputs;
    matrix_.num_inputs = shape.num_inputs;
    matrix_.is_gate_up = shape.epilogue == Epilogue::kSiluMul;
    matrix_.data = weights;
    matrix_.bytes = table().packed_bytes(format, shape.num_outputs, shape.num_inputs);
    // The same few source rows all over: what the weights are does not change the time.
    std::vector<float> rows(int64_t{64} * shape.num_inputs);
    for (size_t i = 0; i < rows.size(); ++i)
      rows[i] = 0.01f * static_cast<float>(i * 37 % 101) - 0.5f;
    for (int32_t n = 0; n < shape.num_outputs; n += 64) {
      PackParams pack;
      pack.matrix = &matrix_;
      pack.source = rows.data();
      pack.source_stride = int64_t{shape.num_inputs} * 4;
      pack.first_output = n;
      pack.num_rows = std::min(64, shape.num_outputs - n);
      table().pack(pack);
    }
    params_.weight = &matrix_;
    params_.in = buffers.in(shape.num_inputs);
    params_.epilogue = shape.epilogue;
    params_.out = reinterpret_cast<float*>(buffers.out.data());
    params_.out_stride = matrix_.is_gate_up ? shape.num_outputs / 2 : int64_t{shape.num_outputs};
    params_.argmax = buffers.argmax.data();
  }
  Product(const Product&) = delete;
  Product& operator=(const Product&) = delete;

  void quantize(CpuContext& context, int32_t rows) {
    std::vector<float> x(int64_t{rows} * matrix_.num_inputs);
    for (size_t i = 0; i < x.size(); ++i) x[i] = 0.02f * static_cast<float>(i * 53 % 97) - 1.0f;
    QuantizeParams params;
    params.num_rows = rows;
    params.width = matrix_.num_inputs;
    params.x = x.data();
    params.out = params_.in;
    table().quantize(context, params);
  }

  void run(CpuContext& context, int32_t rows) {
    params_.num_rows = rows;
    table().linear(context, params_);
  }

  int64_t bytes() const { return matrix_.bytes; }
  double operations() const { return 2.0 * matrix_.num_outputs * matrix_.num_inputs; }

 private:
  PackedMatrix matrix_;
  LinearParams params_;
};

/// The products of one forward, packed one after the other as a decoder keeps them.
struct Products {
  Products(const std::vector<const Shape*>& shapes, const WeightFormat& format)
      : shapes(shapes),
        format(format),
        buffers(format, kMaxRows),
        weights(total_bytes(shapes, format)) {
    char* next = weights.data();
    for (const Shape* shape : shapes) {
      all.push_back(std::make_unique<Product>(*shape, format, next, buffers));
      next += all.back()->bytes();
      operations += all.back()->operations();
    }
    bytes = static_cast<double>(next - weights.data());
  }

  static int64_t total_bytes(const std::vector<const Shape*>& shapes, const WeightFormat& format) {
    int64_t total = 0;
    for (const Shape* shape : shapes) {
      total += table().packed_bytes(format, shape->num_outputs, shape->num_inputs);
    }
    return total;
  }

  static constexpr int32_t kMaxRows = 512;
  std::vector<const Shape*> shapes;
  WeightFormat format;
  Buffers buffers;
  Pages weights;
  std::vector<std::unique_ptr<Product>> all;
  double bytes = 0, operations = 0;
};

/// Packing takes much longer than the measurement: the last products are kept for other rows.
Products& cached_products(const std::vector<const Shape*>& shapes, const WeightFormat& format) {
  static std::unique_ptr<Products> cache;
  if (!cache || cache->shapes != shapes || cache->format != format) {
    cache.reset();
    cache = std::make_unique<Products>(shapes, format);
  }
  return *cache;
}

void run_products(benchmark::State& state, const std::vector<const Shape*>& shapes,
                  const WeightFormat& format, int32_t rows) {
  CpuContext context(num_threads());
  Products& products = cached_products(shapes, format);
  // Products of one width share their activations. Left as they are, these could be subnormal
  // numbers, which take longer.
  for (auto& product : products.all) product->quantize(context, rows);
  for (auto _ : state) {
    for (auto& product : products.all) product->run(context, rows);
  }
  set_rate(state, "GB/s", products.bytes);
  set_rate(state, "GOP/s", products.operations * rows);
}

/// The peak of one sequence of instructions, on all threads.
void peak(benchmark::State& state, double (*function)(int64_t)) {
  CpuContext context(num_threads());
  double operations = 0;
  for (auto _ : state) {
    context.parallel([&](int index, int num_threads) {
      const double done = function(20000);
      if (index == 0) operations = done * num_threads;
    });
  }
  set_rate(state, "GOP/s", operations);
}

void register_peaks() {
#if defined(__x86_64__)
  const std::string isa = table().name;
  const auto add = [&](const char* name, double (*function)(int64_t)) {
    const std::string title = "peak/" + isa + "/" + name;
    benchmark::RegisterBenchmark(title.c_str(), [function](benchmark::State& state) {
      peak(state, function);
    })->UseRealTime();
  };
  if (isa == "avx512") {
    add("float32", avx512::float_peak);
    add("int8", avx512::int8_peak);
    add("int4", avx512::int4_peak);
  } else if (isa == "avx2_vnni") {
    add("float32", avx2_vnni::float_peak);
    add("int8", avx2_vnni::int8_peak);
    add("int4", avx2_vnni::int4_peak);
  } else if (isa == "avx2") {
    add("float32", avx2::float_peak);
    add("int8", avx2::int8_peak);
    add("int4", avx2::int4_peak);
  }
#endif
}

void dispatch(benchmark::State& state) {
  CpuContext context(num_threads());
  for (auto _ : state) context.parallel([](int, int) {});
}

/// A whole forward's products, each plain one by itself so that it stays in the caches (the
/// arithmetic alone), and each in copies enough to come from memory.
std::vector<std::pair<std::string, std::vector<const Shape*>>> cases_of(
    const std::vector<Shape>& layer, const Shape& head, int num_layers) {
  std::vector<const Shape*> forward;
  for (int i = 0; i < num_layers; ++i) {
    for (const Shape& shape : layer) forward.push_back(&shape);
  }
  forward.push_back(&head);
  std::vector<std::pair<std::string, std::vector<const Shape*>>> cases = {{"forward", forward}};
  for (const Shape& shape : layer) {
    if (shape.epilogue != Epilogue::kSiluMul) {
      cases.push_back({std::string("hot_") + shape.name, {&shape}});
    }
    const int64_t copies = 1 + (int64_t{100} << 20) / (shape.num_outputs * shape.num_inputs);
    cases.push_back({shape.name, std::vector<const Shape*>(copies, &shape)});
  }
  cases.push_back({head.name, {&head}});
  return cases;
}

void register_products(const ModelSizes& model) {
  // Kept for as long as the benchmarks that point into them.
  static std::vector<std::unique_ptr<std::vector<Shape>>> kept;
  kept.push_back(std::make_unique<std::vector<Shape>>(layer_shapes(model)));
  const std::vector<Shape>& layer = *kept.back();
  kept.push_back(std::make_unique<std::vector<Shape>>(
      1, Shape{"lm_head", model.vocab_size, model.hidden_size, Epilogue::kArgmax}));
  // Of the large models one layer is enough not to fit the caches.
  const int num_layers = model.hidden_size < 1024 ? 30 : 1;
  for (const auto& [name, shapes] : cases_of(layer, kept.back()->front(), num_layers)) {
    for (const WeightFormat& format :
         {kFloat32Weights, kBFloat16Weights, kFloat16Weights, kInt8Weights, kInt4Weights}) {
      for (const int32_t rows : {1, 2, 4, 8, 12, 16, 32, 64, 512}) {
        const std::string title = name + "/" + model.name + "/" + weight_format_name(format) +
                                  "/M:" + std::to_string(rows);
        register_benchmark(title, [shapes = shapes, format, rows](benchmark::State& state) {
          run_products(state, shapes, format, rows);
        });
      }
    }
  }
}

}  // namespace
}  // namespace medusa::cpu

int main(int argc, char** argv) {
  using namespace medusa::cpu;
  benchmark::RegisterBenchmark("dispatch", dispatch)->UseRealTime();
  register_peaks();
  for (const ModelSizes& model : model_sizes()) register_products(model);
  return run_benchmarks(argc, argv);
}
