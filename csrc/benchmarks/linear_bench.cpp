// Matrix products on the CPU: single products and whole forwards (the products alone) of SmolLM2,
// Llama-7B and Llama-3-8B by format and rows, with GB/s of weights read and GOP/s.
//
//   MEDUSA_THREADS=2 MEDUSA_ISA=avx512 linear_bench --benchmark_filter=forward/smollm2
#include <benchmark/benchmark.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "benchmarks/peaks.h"
#include "cpu/activations.h"
#include "cpu/context.h"
#include "cpu/isa.h"

namespace medusa::cpu {
namespace {

int num_threads() {
  const char* value = std::getenv("MEDUSA_THREADS");
  return value ? std::atoi(value) : static_cast<int>(std::thread::hardware_concurrency());
}

const KernelTable& table() {
  const char* name = std::getenv("MEDUSA_ISA");
  return name ? kernel_table(name) : kernel_table();
}

/// Anonymous pages, huge where the system allows.
class Pages {
 public:
  explicit Pages(int64_t bytes) : bytes_(static_cast<size_t>(bytes) + kHugePage) {
    start_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start_ == MAP_FAILED) throw std::bad_alloc();
    madvise(start_, bytes_, MADV_HUGEPAGE);
  }
  ~Pages() { munmap(start_, bytes_); }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;

  /// The first huge page's start.
  char* data() const {
    const uintptr_t start = reinterpret_cast<uintptr_t>(start_);
    return reinterpret_cast<char*>((start + kHugePage - 1) / kHugePage * kHugePage);
  }

 private:
  static constexpr size_t kHugePage = size_t{2} << 20;
  size_t bytes_;
  void* start_;
};

struct Shape {
  const char* name;
  int32_t num_outputs, num_inputs;
  Epilogue epilogue;
};

struct ModelShape {
  const char* name;
  int num_layers;  // as many as the measurement needs to leave the caches behind
  std::vector<Shape> layer;
  Shape head;
};

const std::vector<ModelShape>& models() {
  static const std::vector<ModelShape> models = {
      {"smollm2",
       30,
       {{"qkv", 960, 576, Epilogue::kStore},
        {"o", 576, 576, Epilogue::kAdd},
        {"gate_up", 3072, 576, Epilogue::kSiluMul},
        {"down", 576, 1536, Epilogue::kAdd}},
       {"lm_head", 49152, 576, Epilogue::kArgmax}},
      {"llama_7b",
       1,
       {{"qkv", 12288, 4096, Epilogue::kStore},
        {"o", 4096, 4096, Epilogue::kAdd},
        {"gate_up", 22016, 4096, Epilogue::kSiluMul},
        {"down", 4096, 11008, Epilogue::kAdd}},
       {"lm_head", 32000, 4096, Epilogue::kArgmax}},
      {"llama3_8b",
       1,
       {{"qkv", 6144, 4096, Epilogue::kStore},
        {"o", 4096, 4096, Epilogue::kAdd},
        {"gate_up", 28672, 4096, Epilogue::kSiluMul},
        {"down", 4096, 14336, Epilogue::kAdd}},
       {"lm_head", 128256, 4096, Epilogue::kArgmax}},
  };
  return models;
}

/// Inputs and outputs of all products of a benchmark, reused as a decoder does.
struct Buffers {
  Buffers(DType format, int32_t rows)
      : in(table().activation_bytes(table().activation_format(format), rows, kMaxInputs)),
        out(int64_t{rows} * kMaxStored * 4),
        argmax(static_cast<size_t>(rows)) {}

  static constexpr int32_t kMaxInputs = 14336, kMaxStored = 14336;
  Pages in, out;
  std::vector<int32_t> argmax;
};

/// One product; its weights are packed to `weights`.
class Product {
 public:
  Product(const Shape& shape, DType format, char* weights, Buffers& buffers) {
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
    params_.in = {table().activation_format(format), shape.num_inputs, buffers.in.data()};
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

/// The products of one forward, packed one behind the other as a decoder keeps them.
struct Products {
  Products(const std::vector<const Shape*>& shapes, DType format)
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

  static int64_t total_bytes(const std::vector<const Shape*>& shapes, DType format) {
    int64_t total = 0;
    for (const Shape* shape : shapes) {
      total += table().packed_bytes(format, shape->num_outputs, shape->num_inputs);
    }
    return total;
  }

  static constexpr int32_t kMaxRows = 512;
  std::vector<const Shape*> shapes;
  DType format;
  Buffers buffers;
  Pages weights;
  std::vector<std::unique_ptr<Product>> all;
  double bytes = 0, operations = 0;
};

/// Packing takes much longer than the measurement: the last products are kept for other rows.
Products& cached_products(const std::vector<const Shape*>& shapes, DType format) {
  static std::unique_ptr<Products> cache;
  if (!cache || cache->shapes != shapes || cache->format != format) {
    cache.reset();
    cache = std::make_unique<Products>(shapes, format);
  }
  return *cache;
}

void run_products(benchmark::State& state, const std::vector<const Shape*>& shapes, DType format,
                  int32_t rows) {
  CpuContext context(num_threads());
  Products& products = cached_products(shapes, format);
  products.all.front()->quantize(context, rows);  // the others read the same bytes
  for (auto _ : state) {
    for (auto& product : products.all) product->run(context, rows);
  }
  const auto rate = [](double amount) {
    return benchmark::Counter(amount, benchmark::Counter::kIsIterationInvariantRate);
  };
  state.counters["GB/s"] = rate(products.bytes * 1e-9);
  state.counters["GOP/s"] = rate(products.operations * rows * 1e-9);
}

/// Reads memory much larger than the caches, on all threads.
void dram_read(benchmark::State& state) {
  CpuContext context(num_threads());
  constexpr int64_t kBytes = int64_t{512} << 20, kPiece = 1 << 18;
  const Pages pages(kBytes);
  std::memset(pages.data(), 1, kBytes);
  const auto* words = reinterpret_cast<const uint64_t*>(pages.data());
  std::vector<uint64_t> sums(int64_t{context.num_threads()} * 16);
  for (auto _ : state) {
    context.parallel_for(kBytes, kPiece, [&](int64_t begin, int64_t end, int thread) {
      uint64_t lanes[32] = {};
      for (int64_t i = begin / 8; i < end / 8; i += 32) {
        __builtin_prefetch(words + i + 512);
        __builtin_prefetch(words + i + 520);
        __builtin_prefetch(words + i + 528);
        __builtin_prefetch(words + i + 536);
        for (int lane = 0; lane < 32; ++lane) lanes[lane] ^= words[i + lane];
      }
      for (const uint64_t lane : lanes) sums[thread * 16] ^= lane;
    });
    benchmark::DoNotOptimize(sums.data());
  }
  state.SetBytesProcessed(state.iterations() * kBytes);
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
  state.counters["GOP/s"] =
      benchmark::Counter(operations * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
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

void register_all() {
  benchmark::RegisterBenchmark("dram_read", dram_read)->UseRealTime();
  benchmark::RegisterBenchmark("dispatch", dispatch)->UseRealTime();
  register_peaks();
  constexpr DType kFormats[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kInt8,
                                DType::kInt4};
  for (const ModelShape& model : models()) {
    std::vector<const Shape*> forward;
    for (int layer = 0; layer < model.num_layers; ++layer) {
      for (const Shape& shape : model.layer) forward.push_back(&shape);
    }
    forward.push_back(&model.head);
    std::vector<std::pair<std::string, std::vector<const Shape*>>> cases = {{"forward", forward}};
    // One product that stays in the caches: the arithmetic alone.
    cases.push_back({"hot", {&model.layer[1]}});
    for (const Shape& shape : model.layer) {
      // Copies enough to come from memory each time.
      const int64_t copies = 1 + (int64_t{100} << 20) / (shape.num_outputs * shape.num_inputs);
      cases.push_back({shape.name, std::vector<const Shape*>(copies, &shape)});
    }
    cases.push_back({model.head.name, {&model.head}});
    for (const auto& [name, shapes] : cases) {
      for (const DType format : kFormats) {
        for (const int32_t rows : {1, 2, 4, 8, 12, 16, 32, 64, 512}) {
          const std::string title =
              name + "/" + model.name + "/" + dtype_name(format) + "/M:" + std::to_string(rows);
          benchmark::RegisterBenchmark(title.c_str(),
                                       [shapes = shapes, format, rows](benchmark::State& state) {
                                         run_products(state, shapes, format, rows);
                                       })
              ->UseRealTime()
              ->ComputeStatistics("min",
                                  [](const std::vector<double>& times) {
                                    return *std::min_element(times.begin(), times.end());
                                  })
              ->Unit(benchmark::kMicrosecond);
        }
      }
    }
  }
}

}  // namespace
}  // namespace medusa::cpu

int main(int argc, char** argv) {
  medusa::cpu::register_all();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
