// One sequence of a session: its text, its options, and what the step at hand does with it.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/params/sampling.h"
#include "engine/lookup.h"
#include "engine/step_tree.h"

namespace medusa {

struct Sequence {
  int32_t slot = 0;  // of the cache

  // Options, until they are changed.
  SamplingRule rule = {0};  // greedy
  uint64_t seed = 0;
  bool keeps_logits = false;

  std::vector<int32_t> text;  // tokens whose K/V is in the cache
  int32_t root = -1;          // decided, without K/V; -1: none yet
  bool has_hidden = false;    // the hidden state that decided the root is kept
  std::unique_ptr<NGramIndex> ngrams;

  // The step at hand: a piece of the prompt, then a tree, either of which may be empty. The tree of
  // a prompt's last piece is the prompt's last token alone: what follows it becomes the root.
  std::vector<int32_t> chunk;
  StepTree tree;
  bool is_fed = false;

  // The last step's results, and where its rows are.
  std::vector<int32_t> path;  // nodes of the tree
  std::vector<int32_t> emitted;
  int32_t chunk_row = -1;  // the first of num_chunk_rows rows of the forward; -1: none
  int32_t num_chunk_rows = 0;
  int32_t tree_row = -1;
  int32_t num_tree_rows = 0;
  bool has_logits = false;  // of the tree
  bool has_failed = false;  // no token followed: logits that were not finite

  int32_t length() const { return static_cast<int32_t>(text.size()); }
  bool samples() const { return rule.temperature > 0; }
  bool wants_logits() const { return keeps_logits || samples(); }
  /// Whether drafts can be added in the step at hand.
  bool drafts() const { return root >= 0 && !is_fed; }
  /// Where the tree's root goes.
  int32_t root_position() const { return length() + static_cast<int32_t>(chunk.size()); }
  /// Of the step at hand.
  int32_t num_rows() const { return static_cast<int32_t>(chunk.size()) + tree.num_nodes(); }

  void set_sampling(const SamplingRule& new_rule, uint64_t new_seed);
  /// Forgets everything from `new_length` on.
  void truncate(int32_t new_length, int32_t new_root);

  /// The root alone, if there is one.
  void begin_step(int32_t max_nodes, int32_t max_length);
  /// A piece of the prompt in the place of root and tree.
  void feed(const int32_t* tokens, int32_t count, bool is_last);
  void forget_rows();
  /// What the step appended, without a tree; `take_tree` follows where there is one.
  void take_chunk();
  /// Of `count` accepted nodes.
  void take_tree(const int32_t* accepted_path, const int32_t* tokens, int32_t count);
};

}  // namespace medusa
