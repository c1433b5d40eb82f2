#include "benchmarks/kernel_bench.h"
#include "cpu/linear/activations.h"

namespace medusa::cpu {
namespace {

std::vector<float> sample_rows(int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) values[static_cast<size_t>(i)] = sample_value(i);
  return values;
}

/// The bytes that a row of activations has beside its padding.
double activation_bytes(const ActivationFormat& format, int32_t width) {
  return format == kInt8Activations ? num_groups(width) * (kGroupSize + 12.0) : width * 4.0;
}

void rms_norm(benchmark::State& state, int32_t width, const WeightFormat& readers,
              int32_t num_rows) {
  const std::vector<float> x = sample_rows(int64_t{num_rows} * width), weight = sample_rows(width);
  const ActivationFormat format = table().activation_format(readers);
  const Pages out(table().activation_bytes(format, num_rows, width));
  RmsNormParams params;
  params.num_rows = num_rows;
  params.width = width;
  params.epsilon = 1e-5f;
  params.x = x.data();
  params.weight = weight.data();
  params.out = {format, width, out.data()};
  CpuContext context(num_threads());
  for (auto _ : state) table().rms_norm(context, params);
  set_rate(state, "GB/s", num_rows * (4.0 * width + activation_bytes(format, width)));
}

void quantize(benchmark::State& state, int32_t width, const WeightFormat& readers,
              int32_t num_rows) {
  const std::vector<float> x = sample_rows(int64_t{num_rows} * width);
  const ActivationFormat format = table().activation_format(readers);
  const Pages out(table().activation_bytes(format, num_rows, width));
  QuantizeParams params;
  params.num_rows = num_rows;
  params.width = width;
  params.x = x.data();
  params.out = {format, width, out.data()};
  CpuContext context(num_threads());
  for (auto _ : state) table().quantize(context, params);
  set_rate(state, "GB/s", num_rows * (4.0 * width + activation_bytes(format, width)));
}

void embed(benchmark::State& state, int32_t width, const WeightFormat& format, int32_t num_rows) {
  constexpr int32_t kTokens = 4096;  // of the vocabulary; packing all of it would take long
  PackedMatrix matrix;
  matrix.format = format;
  matrix.num_outputs = kTokens;
  matrix.num_inputs = width;
  matrix.bytes = table().packed_bytes(format, kTokens, width);
  const Pages pages(matrix.bytes);
  matrix.data = pages.data();
  const std::vector<float> source = sample_rows(int64_t{64} * width);
  for (int32_t first = 0; first < kTokens; first += 64) {
    PackParams pack;
    pack.matrix = &matrix;
    pack.source = source.data();
    pack.source_stride = int64_t{width} * 4;
    pack.first_output = first;
    pack.num_rows = 64;
    table().pack(pack);
  }
  std::vector<int32_t> tokens;
  for (int32_t r = 0; r < num_rows; ++r) tokens.push_back(r * 1009 % kTokens);
  std::vector<float> out(int64_t{num_rows} * width);
  EmbedParams params;
  params.num_rows = num_rows;
  params.tokens = tokens.data();
  params.table = &matrix;
  params.out = out.data();
  CpuContext context(num_threads());
  for (auto _ : state) table().embed(context, params);
  set_rate(state, "GB/s", num_rows * (4.0 * width + static_cast<double>(matrix.bytes) / kTokens));
}

}  // namespace

void register_row_kernels(const ModelSizes& model) {
  using Function = void (*)(benchmark::State&, int32_t, const WeightFormat&, int32_t);
  const auto add = [&](const char* name, Function function, int32_t width,
                       const WeightFormat& format) {
    for (const int32_t rows : {1, 16, 64}) {
      register_benchmark(std::string(name) + "/" + model.name + "/" + weight_format_name(format) +
                             "/width:" + std::to_string(width) + "/R:" + std::to_string(rows),
                         [=](benchmark::State& state) { function(state, width, format, rows); });
    }
  };
  for (const WeightFormat& format : {kFloat32Weights, kInt8Weights}) {
    add("rms_norm", rms_norm, model.hidden_size, format);
  }
  add("quantize", quantize, model.hidden_size, kInt8Weights);
  add("quantize", quantize, model.ffn_size, kInt8Weights);
  for (const WeightFormat& format :
       {kFloat32Weights, kBFloat16Weights, kInt8Weights, kInt4Weights}) {
    add("embed", embed, model.hidden_size, format);
  }
}

}  // namespace medusa::cpu
