// Logits that are not finite end a forward's call with the place where that began.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/gguf_blocks.h"
#include "engine/session.h"
#include "model/weight_check.h"
#include "tests/kernels_under_test.h"
#include "tests/plain_decoding.h"
#include "tests/tiny_model.h"

namespace medusa {
namespace {

constexpr int32_t kOverflowing = 61;
const std::vector<int32_t> kPrompt = {5, 17, 42, 9, 3, 10};

std::shared_ptr<Model> overflowing_model(const std::string& isa, int32_t layer) {
  testing::TinyOptions options{kFloat32Weights, isa};
  options.overflowing_token = kOverflowing;
  options.overflowing_layer = layer;
  return testing::make_tiny_model(options);
}

SamplingRule rule_at(float temperature, bool typical) {
  SamplingRule rule;
  rule.temperature = temperature;
  rule.typical = typical;
  return rule;
}

const std::vector<SamplingRule> kRules = {rule_at(0, false), rule_at(0.8f, false),
                                          rule_at(0.8f, true)};

void step(Session& session) {
  session.begin_step();
  testing::step(session);
}

template <typename F>
std::string message_of(F&& work) {
  try {
    work();
  } catch (const std::runtime_error& error) {
    return error.what();
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "";
}

std::string expected(int32_t layer, int32_t token) {
  return "logits: need finite numbers; layer " + std::to_string(layer) +
         " is the first to give NaN or infinity, for token " + std::to_string(token) +
         " of the text";
}

int32_t prefill(Session& session, int32_t b, const std::vector<int32_t>& tokens) {
  return session.prefill(b, tokens.data(), static_cast<int32_t>(tokens.size()), nullptr);
}

class NumbersTest : public ::testing::TestWithParam<std::string> {};

TEST_P(NumbersTest, APrefillNamesTheLayerAndLeavesTheSessionAsItWas) {
  for (int32_t layer = 0; layer < 2; ++layer) {
    for (const SamplingRule& rule : kRules) {
      Session session(overflowing_model(GetParam(), layer), 2, 64, 4, DType::kFloat32);
      session.set_sampling(1, rule, 1);
      const int32_t root = prefill(session, 1, kPrompt);
      ASSERT_GE(root, 0);
      std::vector<int32_t> more = {1, 2, kOverflowing};
      // Later tokens read the broken row where a layer follows.
      if (layer == 0) more.push_back(3);
      EXPECT_EQ(message_of([&] { prefill(session, 1, more); }), expected(layer, 8));
      EXPECT_EQ(session.text(1), kPrompt);
      EXPECT_EQ(session.root(1), root);
      EXPECT_GE(prefill(session, 1, {4}), 0);
    }
  }
}

TEST_P(NumbersTest, AStepEndsCompleteForEverySequence) {
  for (const SamplingRule& rule : kRules) {
    const std::shared_ptr<Model> model = overflowing_model(GetParam(), 1);
    Session session(model, 2, 64, 4, DType::kFloat32), healthy(model, 2, 64, 4, DType::kFloat32);
    for (Session* one : {&session, &healthy}) {
      for (int32_t b : {0, 1}) {
        one->set_sampling(b, rule, 1);
        prefill(*one, b, kPrompt);
      }
    }
    step(healthy);
    session.truncate(1, 6, kOverflowing);
    step(session);
    EXPECT_EQ(session.text(0), healthy.text(0));
    EXPECT_EQ(session.emitted(0), healthy.emitted(0));
    EXPECT_EQ(session.length(1), 7);
    EXPECT_EQ(session.root(1), -1);
    EXPECT_TRUE(session.emitted(1).empty());
    EXPECT_EQ(session.failure(0), "");
    EXPECT_EQ(session.failure(1), expected(1, 6));
    EXPECT_EQ(message_of([&] { session.check_finite(); }), expected(1, 6));
    session.set_active({0});
    healthy.set_active({0});
    step(session);
    step(healthy);
    EXPECT_EQ(session.text(0), healthy.text(0));
    session.truncate(1, 6, kPrompt[0]);
    session.set_active({0, 1});
    step(session);
    EXPECT_EQ(session.failure(1), "");
    session.check_finite();
  }
}

TEST_P(NumbersTest, TemperaturesBelowWhatFloat32HoldsAreGreedy) {
  const std::shared_ptr<Model> model = overflowing_model(GetParam(), 1);
  Session greedy(model, 1, 64, 4, DType::kFloat32), cold(model, 1, 64, 4, DType::kFloat32);
  for (const float temperature : {1e-45f, 1e-38f, 0.9e-30f, 1e-30f}) {
    for (const bool typical : {false, true}) {
      greedy.truncate(0, 0, -1);
      cold.truncate(0, 0, -1);
      cold.set_sampling(0, rule_at(temperature, typical), 1);
      prefill(greedy, 0, kPrompt);
      prefill(cold, 0, kPrompt);
      for (int i = 0; i < 6; ++i) {
        step(greedy);
        step(cold);
      }
      EXPECT_EQ(cold.text(0), greedy.text(0)) << temperature;
    }
  }
}

/// What setting one row of an embedding of this format to `weight` says; empty: nothing.
std::string refusal(const WeightFormat& format, float weight) {
  const testing::TinyOptions options;
  const ModelConfig config = testing::tiny_config(options);
  Formats formats = {{"embed", format}};
  for (int32_t i = 0; i < config.num_layers(); ++i) {
    for (const char* name : {"q", "k", "v", "o", "gate", "up", "down"}) {
      formats["layers." + std::to_string(i) + "." + name] = format;
    }
  }
  ModelBuilder builder(config, formats, cpu::make_backend());
  std::vector<float> rows(2 * static_cast<size_t>(config.hidden_size), 0.5f);
  rows[rows.size() - 1] = weight;
  return message_of([&] {
    builder.slots().set_rows("embed", 0, SourceType::kFloat32, rows.data(), 2,
                             int64_t{config.hidden_size} * 4);
  });
}

TEST(WeightCheckTest, WeightsThatAreNoNumbersAreRefusedByName) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const NamedWeightFormat& known : kWeightFormats) {
    for (const float weight : {kInfinity, -kInfinity, std::nanf(""), -std::nanf("")}) {
      EXPECT_EQ(refusal(known.format, weight).rfind("embed: needs finite weights, got ", 0), 0u)
          << known.name << refusal(known.format, weight);
      EXPECT_NE(refusal(known.format, weight).find(" in row 1"), std::string::npos);
    }
    const float limit = largest_weight(known.format);
    EXPECT_EQ(refusal(known.format, limit), "") << known.name;
    EXPECT_EQ(refusal(known.format, -limit), "") << known.name;
  }
  EXPECT_EQ(refusal(kFloat16Weights, -1e6f),
            "embed: needs weights that float16 holds, of at most 65504, got 1e+06 in row 1");
  EXPECT_NE(refusal(kBFloat16Weights, 3.4e38f).find("that bfloat16 holds"), std::string::npos);
  EXPECT_NE(refusal(kInt8Weights, 9e6f).find("that int8 holds"), std::string::npos);
}

TEST(WeightCheckTest, EveryStoredTypeIsLookedAt) {
  constexpr uint16_t kInfinity16 = 0x7c00;
  const auto check = [](SourceType type, const void* row) {
    return message_of([&] {
      check_weights("w", kFloat16Weights, type, row, 1, kGroupSize,
                    source_row_bytes(type, kGroupSize), 0);
    });
  };
  std::vector<BFloat16> bfloat16(kGroupSize, from_float<BFloat16>(-2.0f));
  std::vector<Float16> float16(kGroupSize, from_float<Float16>(-2.0f));
  EXPECT_EQ(check(SourceType::kBFloat16, bfloat16.data()), "");
  EXPECT_EQ(check(SourceType::kFloat16, float16.data()), "");
  bfloat16[31] = from_float<BFloat16>(-70000.0f);
  float16[0].bits = 0x8000 | kInfinity16;
  EXPECT_NE(check(SourceType::kBFloat16, bfloat16.data()), "");
  EXPECT_NE(check(SourceType::kFloat16, float16.data()), "");
  BlockQ8_0 q8_0 = {from_float<Float16>(60000.0f), {1, -1}};
  BlockQ4_0 q4_0 = {from_float<Float16>(-8000.0f), {0x88}};
  BlockQ4_1 q4_1 = {from_float<Float16>(8000.0f), from_float<Float16>(-60000.0f), {}};
  // The scales alone would allow more than float16 holds; the weights are within it.
  EXPECT_EQ(check(SourceType::kQ8_0, &q8_0), "");
  EXPECT_EQ(check(SourceType::kQ4_0, &q4_0), "");
  EXPECT_EQ(check(SourceType::kQ4_1, &q4_1), "");
  q8_0.q[5] = 2;
  q4_1.m.bits = kInfinity16 | 1;  // NaN
  q4_0.d.bits = kInfinity16;
  EXPECT_NE(check(SourceType::kQ8_0, &q8_0), "");
  EXPECT_NE(check(SourceType::kQ4_0, &q4_0), "");
  EXPECT_NE(check(SourceType::kQ4_1, &q4_1), "");
}

TEST(WeightCheckTest, VectorsAreFinite) {
  std::vector<float> values(70, -1e30f);
  EXPECT_NO_THROW(check_numbers("v", values.data(), 70));
  values[69] = std::nanf("");
  EXPECT_THROW(check_numbers("v", values.data(), 70), std::invalid_argument);
}

INSTANTIATE_TEST_SUITE_P(Isas, NumbersTest, ::testing::ValuesIn(isas_under_test()),
                         [](const auto& info) { return info.param; });
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(NumbersTest);

}  // namespace
}  // namespace medusa
