#include "engine/sequence.h"

namespace medusa {

void Sequence::set_sampling(const SamplingRule& new_rule, uint64_t new_seed) {
  rule = new_rule;
  if (new_rule.temperature < kLeastTemperature) rule.temperature = 0;
  rule.typical = new_rule.typical && samples();
  seed = new_seed;
}

void Sequence::truncate(int32_t new_length, int32_t new_root) {
  text.resize(static_cast<size_t>(new_length));
  if (ngrams) ngrams->truncate(new_length);
  root = new_root;
  has_hidden = has_failed = false;
}

void Sequence::begin_step(int32_t max_nodes, int32_t max_length) {
  is_fed = false;
  chunk.clear();
  tree.clear();
  if (root >= 0) tree.reset(root, max_nodes, max_length - length() - 1);
}

void Sequence::feed(const int32_t* tokens, int32_t count, bool is_last) {
  const int32_t before = is_last ? count - 1 : count;
  is_fed = true;
  chunk.assign(tokens, tokens + before);
  tree.clear();
  if (is_last) tree.reset(tokens[before], 1, 0);
}

void Sequence::forget_rows() {
  chunk_row = tree_row = -1;
  num_chunk_rows = num_tree_rows = 0;
  has_logits = has_failed = false;
}

void Sequence::take_chunk() {
  if (is_fed && ngrams) ngrams->truncate(length());  // it may have the root that was replaced
  text.insert(text.end(), chunk.begin(), chunk.end());
  path.clear();
  emitted.clear();
  root = -1;
  has_hidden = false;
}

void Sequence::take_tree(const int32_t* accepted_path, const int32_t* tokens, int32_t count) {
  path.assign(accepted_path, accepted_path + count);
  emitted.assign(tokens, tokens + count);
  text.push_back(tree.tokens()[0]);
  text.insert(text.end(), emitted.begin(), emitted.end() - 1);
  root = emitted.back();
  has_hidden = true;
  has_failed = root < 0;
  if (has_failed) emitted.pop_back();
}

}  // namespace medusa
