// What heads draft: their candidates, arranged as a tree.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "core/token_tree.h"
#include "engine/sequence.h"
#include "engine/step_rows.h"
#include "model/heads.h"

namespace medusa {

class HeadDrafts {
 public:
  /// `last_hidden`, [B, H], is the hidden state that decided each slot's root.
  HeadDrafts(std::shared_ptr<const Model> model, Context& context, const float* last_hidden,
             int32_t batch);

  /// Of a new step: no heads are to run in it.
  void begin() { open_ = nullptr; }

  /// Top-k ids and log-probabilities (or null) [B', K, k] at the roots of `sequences`.
  void candidates(const std::shared_ptr<const Heads>& heads,
                  const std::vector<Sequence*>& sequences, int32_t top_k, std::vector<int32_t>* ids,
                  std::vector<float>* log_probs);

  /// Adds candidates to the trees of those `sequences` that can have them. With `is_open` the step
  /// will find the tokens: until then nodes hold a `head_draft` in their place.
  void add(const std::shared_ptr<const Heads>& heads, const TokenTree& tree,
           const std::vector<Sequence*>& sequences, bool is_open);

  /// The heads that the step is to run for open nodes, or null, and how many ranks of each.
  const Heads* open() const { return open_.get(); }
  int32_t open_top_k() const { return open_top_k_; }
  /// Runs them for the sequences of `rows`, as part of a step; `merge` takes the result.
  MergeDraftsParams run(const StepRows& rows, const Heads* heads, int32_t top_k);
  /// Gives open nodes their tokens before a step that does not run heads.
  void resolve(const std::vector<Sequence*>& sequences);

 private:
  HeadsRunner& runner(const std::shared_ptr<const Heads>& heads);
  void select_drafters(const std::vector<Sequence*>& sequences);
  void add_nodes(StepTree& nodes, const TokenTree& tree, const int32_t* ids, int32_t top_k);
  void resolve_nodes(StepTree& tree, const int32_t* ids);

  std::shared_ptr<const Model> model_;
  Context* context_;
  const float* last_hidden_;
  int32_t batch_;
  DeviceArray<int32_t> slots_;  // [B]
  DeviceArray<int32_t> roots_;  // [B]
  std::map<const Heads*, std::pair<std::shared_ptr<const Heads>, HeadsRunner>> runners_;
  std::shared_ptr<const Heads> open_;
  int32_t open_top_k_ = 0;
  std::vector<Sequence*> drafters_;
  std::vector<int32_t> host_slots_, host_roots_, host_ids_, node_map_;
};

}  // namespace medusa
