// Plain decoding of one sequence: what every other way of decoding is compared with.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/session.h"

namespace medusa::testing {

inline const std::vector<int32_t> kPrompt = {5, 17, 42, 42, 9, 3, 77, 100, 0, 1, 2};

struct Sampling {
  SamplingRule rule;
  uint64_t seed;
};

struct Plain {
  std::vector<int32_t> tokens;
  std::vector<std::vector<float>> logits;  // [token], those that decided it
};

inline std::vector<float> node_logits(Session& session, int32_t b, int32_t node) {
  std::vector<float> row(static_cast<size_t>(session.model().config().vocab_size));
  session.copy_logits(b, node, row.data());
  return row;
}

inline void step(Session& session) {
  session.verify();
  session.accept();
  session.compact();
}

inline Plain decode_plainly(const std::shared_ptr<Model>& model, const Sampling& sampling,
                            int32_t count, const std::vector<int32_t>& prompt = kPrompt) {
  Session session(model, 1, 200, 1, DType::kFloat32);
  session.keep_logits(0, true);
  session.set_sampling(0, sampling.rule, sampling.seed);
  Plain plain;
  plain.tokens.push_back(
      session.prefill(0, prompt.data(), static_cast<int32_t>(prompt.size()), nullptr));
  plain.logits.emplace_back(static_cast<size_t>(model->config().vocab_size));
  session.copy_prefill_logits(plain.logits.back().data());
  while (static_cast<int32_t>(plain.tokens.size()) < count) {
    session.begin_step();
    step(session);
    plain.tokens.push_back(session.root(0));
    plain.logits.push_back(node_logits(session, 0, 0));
  }
  return plain;
}

inline Sampling greedy() { return {{0}, 0}; }

inline Sampling sampled(uint64_t seed) { return {{0.8f, 0.9f, 40}, seed}; }

}  // namespace medusa::testing
