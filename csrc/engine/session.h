// A session: the cache and state of B sequences, and the phases of a decoding step.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "core/backend.h"
#include "core/token_tree.h"
#include "engine/kv_cache.h"
#include "engine/lookup.h"
#include "engine/step_graphs.h"
#include "engine/step_ring.h"
#include "engine/step_rows.h"
#include "engine/step_tree.h"
#include "model/decoder.h"
#include "model/heads.h"
#include "model/model.h"

namespace medusa {

/// How targets are drawn. Temperature 0 is greedy.
struct Sampling {
  float temperature = 0;
  float top_p = 1;
  int32_t top_k = 0;
  bool typical = false;
  float epsilon = 0.09f;
  float delta = 0.3f;
  std::vector<uint64_t> seeds;  // [B]
};

struct LookupOptions {
  int32_t max_nodes = 0;  // drafted nodes at most
  int32_t max_ngram = 0;
  int32_t min_ngram = 0;
  int32_t max_branches = 0;
};

/// One step: begin_step, drafts, verify, accept, compact. Faults in arguments are
/// std::invalid_argument, phases out of order std::logic_error; neither changes the state.
class Session {
 public:
  Session(std::shared_ptr<const Model> model, int32_t batch, int32_t max_length, int32_t max_nodes,
          DType kv_dtype);

  int32_t batch() const { return static_cast<int32_t>(sequences_.size()); }
  int32_t max_length() const { return max_length_; }
  int32_t max_nodes() const { return max_nodes_; }
  const Model& model() const { return *model_; }
  int32_t length(int32_t b) const { return static_cast<int32_t>(sequence(b).text.size()); }
  int32_t root(int32_t b) const { return sequence(b).root; }
  const std::vector<int32_t>& text(int32_t b) const { return sequence(b).text; }
  const StepTree& tree(int32_t b) const { return sequence(b).tree; }
  const std::vector<int32_t>& accepted_path(int32_t b) const { return sequence(b).path; }
  const std::vector<int32_t>& emitted(int32_t b) const { return sequence(b).emitted; }

  void set_num_threads(int num_threads) { context_->set_num_threads(num_threads); }
  void set_sampling(Sampling sampling);
  void set_active(std::vector<int32_t> active);
  /// Behind one of these a step emits nothing: it is the next root.
  void set_end_tokens(std::vector<int32_t> tokens);
  void keep_logits(bool keep) { keep_logits_ = keep; }
  /// Every phase ends when its work has: a clock beside it tells the truth, and no step is
  /// replayed.
  void set_profiling(bool profiling);

  /// Appends tokens in chunks; the next token becomes the root. `hidden`, if not null, receives
  /// the final-norm output of every token, [count, H].
  int32_t prefill(int32_t b, const int32_t* tokens, int32_t count, std::vector<float>* hidden);
  void truncate(int32_t b, int32_t length, int32_t root);

  void begin_step();
  /// Heads and lookup draft for these of the active sequences until the next call or step.
  void draft_for(std::vector<int32_t> sequences);
  int32_t add_node(int32_t b, int32_t parent, int32_t token);
  void set_tree(int32_t b, const std::vector<int32_t>& tokens, const std::vector<int32_t>& parents);
  void draft_heads(const std::shared_ptr<const Heads>& heads, const TokenTree& tree);
  int32_t draft_lookup(const LookupOptions& options);
  /// What lookup would draft for a sequence after its root: its best match's tokens.
  std::vector<int32_t> look_up(int32_t b, const LookupOptions& options);
  void verify();
  void accept();
  void compact();

  /// Kinds of steps that were recorded to be replayed; 0 where the backend does not.
  size_t num_recorded_steps() const { return graphs_.num_recorded(); }

  /// Top-k ids and log-probabilities [B', K, k] of the heads at the present state of the active
  /// sequences.
  void head_candidates(const std::shared_ptr<const Heads>& heads, int32_t top_k,
                       std::vector<int32_t>* ids, std::vector<float>* log_probs);

  // Rows of the last verify (of the last prefill: its last row), copied to the host.
  void copy_hidden(int32_t b, int32_t node, float* out);
  void copy_logits(int32_t b, int32_t node, float* out);
  void copy_prefill_logits(float* out);

  /// Raises the flag that one thread is at work; a second one gets std::runtime_error.
  class Busy {
   public:
    explicit Busy(Session& session);
    ~Busy() { session_.busy_.clear(); }
    Busy(const Busy&) = delete;
    Busy& operator=(const Busy&) = delete;

   private:
    Session& session_;
  };

 private:
  struct Sequence {
    std::vector<int32_t> text;  // tokens whose K/V is in the cache
    int32_t root = -1;          // decided, without K/V; -1: none yet
    bool has_hidden = false;    // the hidden state that decided the root is kept
    StepTree tree;
    std::vector<int32_t> path;     // of the last step
    std::vector<int32_t> emitted;  // of the last step
    std::unique_ptr<NGramIndex> ngrams;
  };
  enum class Phase { kIdle, kDrafting, kVerified, kAccepted };

  Sequence& sequence(int32_t b);
  const Sequence& sequence(int32_t b) const;
  void require_phase(Phase phase, const char* call) const;
  void check_token(int32_t token) const;
  bool wants_logits() const { return keep_logits_ || sampling_.temperature > 0; }
  void forward(const RowTable& table, ForwardOutputs outputs);
  int32_t decide_prefill_root(int32_t b);
  int32_t sample_row(int32_t row, uint64_t seed, int32_t position);
  AcceptParams accept_params();
  void clear_rows();
  void reserve_logits(int32_t num_targets);
  void fill_noise_keys();
  void finish_step();
  void end_phase(Phase phase);
  void publish();
  void compact_rows();

  /// Whether steps of sessions with such trees are recorded and replayed.
  static bool replays(const Model& model, int32_t max_nodes);
  /// Nodes that buffers must hold: of trees padded for replayed steps, where there are such.
  static int32_t node_capacity(const Model& model, int32_t max_nodes);
  void replay_step();
  void run_step(const StepShape& shape);
  MergeDraftsParams run_heads(const StepShape& shape);
  void evaluate_heads(const std::shared_ptr<const Heads>& heads,
                      const std::vector<int32_t>& sequences, int32_t top_k,
                      std::vector<int32_t>* ids, std::vector<float>* log_probs);
  /// The heads' nodes; without `ids` the step itself will find their tokens.
  void add_head_nodes(int32_t b, const TokenTree& tree, const int32_t* ids, int32_t top_k);
  void accept_typical();
  void accept_sampled();
  void walk_and_sample();
  void draft_lookup_branches(Sequence& s, const LookupOptions& options);
  void keep_last_hidden(int32_t num_sequences, int32_t max_path);
  void take_results();
  float* row_of(const DeviceArray<float>& rows, int64_t width, int32_t b, int32_t node) const;
  void copy_row(float* out, const float* row, int64_t width);
  NGramIndex& ngrams(Sequence& s, const LookupOptions& options);
  HeadsRunner& runner(const std::shared_ptr<const Heads>& heads);

  std::shared_ptr<const Model> model_;
  std::unique_ptr<Context> context_;
  int32_t max_length_;
  int32_t max_nodes_;
  Decoder decoder_;
  KvCacheStorage cache_;
  StepRows rows_;
  std::vector<Sequence> sequences_;
  std::vector<int32_t> active_;
  std::vector<int32_t> drafting_;  // of the active ones, those that drafts are for
  Sampling sampling_;
  bool keep_logits_ = false;
  bool verified_logits_ = false;
  bool has_prefill_logits_ = false;
  Phase phase_ = Phase::kIdle;
  std::atomic_flag busy_ = ATOMIC_FLAG_INIT;

  DeviceArray<float> hidden_;       // [R, H] of the last forward
  DeviceArray<float> last_hidden_;  // [B, H] of each sequence's last accepted node
  DeviceArray<float> logits_;       // [R, V] of the last forward that stored them
  DeviceArray<int32_t> targets_;    // [R]
  DeviceArray<int32_t> path_;       // [B, N]
  DeviceArray<int32_t> count_;      // [B]
  DeviceArray<int32_t> next_root_;  // [B]
  UploadArray<uint64_t> seeds_;     // [R], of typical acceptance [B]
  UploadArray<int32_t> positions_;  // [R] of the tokens to draw
  DeviceArray<int32_t> slots_;      // [B] of a head evaluation
  DeviceArray<int32_t> roots_;      // [B]
  HostArray<int32_t> host_path_, host_count_, host_next_root_;  // of walks on the host
  std::vector<int32_t> host_ids_, matches_;
  StepRing ring_;
  std::vector<int32_t> end_tokens_;
  DeviceArray<int32_t> end_tokens_on_device_;
  std::vector<int32_t> node_map_;
  std::map<const Heads*, std::pair<std::shared_ptr<const Heads>, HeadsRunner>> runners_;

  bool is_replayed_;
  bool is_profiling_ = false;
  StepGraphs graphs_;
  bool is_uploading_ = false;  // the device may still read what `rows_` holds on the host
  std::shared_ptr<const Heads> drafting_heads_;  // that the step will run itself
  int32_t drafting_top_k_ = 0;
};

}  // namespace medusa
