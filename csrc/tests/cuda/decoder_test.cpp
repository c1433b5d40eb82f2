// A whole tiny decoder on the device, its steps replayed: its tokens are the CPU's, plain and over
// trees.
#include "model/decoder.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "cpu/runtime/backend.h"
#include "cuda/runtime/table.h"
#include "engine/session.h"
#include "tests/cuda/device.h"
#include "tests/cuda/schedules.h"
#include "tests/tiny_model.h"

namespace medusa::cuda::testing {
namespace {

using medusa::testing::RandomWeights;

const std::vector<int32_t> kPrompt = {5, 17, 42, 42, 9, 3, 77, 100, 0, 1, 2, 64, 33};
constexpr int32_t kNumTokens = 64;

ModelConfig small_config(int32_t window) {
  ModelConfig config;
  config.hidden_size = 64;
  config.num_query_heads = 3;
  config.num_kv_heads = 1;
  config.head_size = 64;
  config.ffn_size = 96;
  config.vocab_size = 211;
  config.tied_embeddings = true;
  config.inverse_frequencies = {medusa::testing::plain_frequencies(config.head_size)};
  config.layers.resize(2);
  for (LayerSpec& layer : config.layers) layer.qkv_bias = layer.qk_norm = true;
  config.layers[0].window = window;
  config.layers[1].pre_norm = false;
  config.layers[1].post_norm = true;
  return config;
}

/// The same weights on any backend.
std::shared_ptr<Model> make_model(const Backend& backend, DType dtype, int32_t window) {
  const ModelConfig config = small_config(window);
  const WeightFormat format = weights_of(dtype);
  Formats formats = {{"embed", format}};
  for (int32_t i = 0; i < config.num_layers(); ++i) {
    for (const char* name : {"q", "k", "v", "o", "gate", "up", "down"}) {
      formats["layers." + std::to_string(i) + "." + name] = format;
    }
  }
  ModelBuilder builder(config, formats, backend);
  WeightSlots& slots = builder.slots();
  RandomWeights random(3);
  random.set_matrix(slots, "embed", config.vocab_size, config.hidden_size);
  random.set_vector(slots, "final_norm", config.hidden_size, 1);
  for (int32_t i = 0; i < config.num_layers(); ++i) {
    const std::string prefix = "layers." + std::to_string(i) + ".";
    const LayerSpec& layer = config.layers[static_cast<size_t>(i)];
    medusa::testing::set_norms(random, slots, prefix, layer, config.hidden_size);
    random.set_matrix(slots, prefix + "q", config.q_width(), config.hidden_size);
    random.set_vector(slots, prefix + "q_bias", config.q_width(), 0);
    random.set_vector(slots, prefix + "q_norm", config.head_size, 1);
    for (const char* name : {"k", "v"}) {
      random.set_matrix(slots, prefix + name, config.kv_width(), config.hidden_size);
      random.set_vector(slots, prefix + name + "_bias", config.kv_width(), 0);
    }
    random.set_vector(slots, prefix + "k_norm", config.head_size, 1);
    random.set_matrix(slots, prefix + "o", config.hidden_size, config.q_width());
    random.set_matrix(slots, prefix + "gate", config.ffn_size, config.hidden_size);
    random.set_matrix(slots, prefix + "up", config.ffn_size, config.hidden_size);
    random.set_matrix(slots, prefix + "down", config.hidden_size, config.ffn_size);
  }
  return builder.finish();
}

/// Guesses for the next tokens: the truth as far as it goes on a random path, and random others.
void plant(Session& session, const std::vector<int32_t>& truth, size_t done, std::mt19937& random) {
  const int32_t vocab = session.model().config().vocab_size;
  int32_t true_node = 0;
  const int32_t num_nodes = static_cast<int32_t>(random() % 20);
  for (int32_t i = 0; i < num_nodes && session.tree(0).num_nodes() < session.max_nodes(); ++i) {
    if (random() % 2 == 0 && done < truth.size()) {
      true_node = session.add_node(0, true_node, truth[done++]);
    } else {
      const auto parent = static_cast<int32_t>(random() % session.tree(0).num_nodes());
      session.add_node(0, parent, static_cast<int32_t>(random() % vocab));
    }
  }
}

/// The first tokens after the prompt; with `truth` drafted from it in trees.
std::vector<int32_t> decode(const std::shared_ptr<Model>& model, DType kv_dtype,
                            const SamplingRule& sampling, const std::vector<int32_t>* truth,
                            int* num_steps) {
  Session session(model, 1, 120, 24, kv_dtype);
  session.set_sampling(0, sampling, 21);
  std::mt19937 random(9);
  std::vector<int32_t> tokens = {
      session.prefill(0, kPrompt.data(), static_cast<int32_t>(kPrompt.size()), nullptr)};
  for (*num_steps = 0; tokens.size() < kNumTokens; ++*num_steps) {
    session.begin_step();
    if (truth != nullptr) plant(session, *truth, tokens.size(), random);
    session.verify();
    session.accept();
    session.compact();
    tokens.insert(tokens.end(), session.emitted(0).begin(), session.emitted(0).end());
  }
  tokens.resize(kNumTokens);
  return tokens;
}

void check(DType dtype, float temperature, int32_t window) {
  SCOPED_TRACE(::testing::Message()
               << dtype_name(dtype) << " T " << temperature << " window " << window);
  const SamplingRule sampling = {temperature, 0.95f, 50};
  int num_steps = 0;
  const std::vector<int32_t> expected =
      decode(make_model(cpu::make_backend(), dtype, window), dtype, sampling, nullptr, &num_steps);
  const std::shared_ptr<Model> model = make_model(make_backend(), dtype, window);
  const auto compare = [&] {
    EXPECT_EQ(expected, decode(model, dtype, sampling, nullptr, &num_steps)) << "plain";
    EXPECT_EQ(kNumTokens - 1, num_steps);
    EXPECT_EQ(expected, decode(model, dtype, sampling, &expected, &num_steps)) << "over trees";
    EXPECT_LT(num_steps, kNumTokens * 3 / 4) << "the planted paths were not accepted";
  };
  under_schedules(compare, 1);  // thousands of launches; each kernel's test has the schedules
}

// In float32 both devices compute the same up to the order of sums.
TEST(Decoder, TokensOfTheCpu) {
  check(DType::kFloat32, 0.0f, 0);
  if (is_sanitized() && !soak()) return;
  check(DType::kFloat32, 0.8f, 9);
}

// With 16-bit weights the device also rounds what matrix products read; this model's choices are
// clear enough for that not to matter.
TEST(Decoder, TokensOfTheCpuIn16Bits) {
  check(DType::kBFloat16, 0.0f, 9);
  if (is_sanitized() && !soak()) return;
  check(DType::kFloat16, 0.0f, 0);
}

}  // namespace
}  // namespace medusa::cuda::testing
