// A session: the cache and state of B sequences, and the phases of a decoding step.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "core/backend.h"
#include "core/profiled_table.h"
#include "core/token_tree.h"
#include "engine/cache_pages.h"
#include "engine/end_tokens.h"
#include "engine/sampler.h"
#include "engine/sequence.h"
#include "engine/step_graphs.h"
#include "engine/step_ring.h"
#include "engine/step_rows.h"
#include "model/decoder.h"
#include "model/heads.h"
#include "model/model.h"

namespace medusa {

struct LookupOptions {
  int32_t max_nodes = 0;  // drafted nodes at most
  int32_t max_ngram = 0;
  int32_t min_ngram = 0;
  int32_t max_branches = 0;
};

/// One step: begin_step, drafts and feeds, verify, accept, compact. Faults in arguments are
/// std::invalid_argument, phases out of order std::logic_error; neither changes the state.
class Session {
 public:
  /// `kv_memory`: bytes that the K/V cache may take at most; 0: what all sequences need at
  /// max_length. It is taken as texts grow (on the CPU; a GPU's is reserved at once).
  Session(std::shared_ptr<const Model> model, int32_t batch, int32_t max_length, int32_t max_nodes,
          DType kv_dtype, int64_t kv_memory = 0);

  int32_t batch() const { return static_cast<int32_t>(sequences_.size()); }
  int32_t max_length() const { return max_length_; }
  int32_t max_nodes() const { return max_nodes_; }
  const Model& model() const { return *model_; }
  int32_t length(int32_t b) const { return sequence(b).length(); }
  int32_t root(int32_t b) const { return sequence(b).root; }
  const std::vector<int32_t>& text(int32_t b) const { return sequence(b).text; }
  const StepTree& tree(int32_t b) const { return sequence(b).tree; }
  const std::vector<int32_t>& accepted_path(int32_t b) const { return sequence(b).path; }
  const std::vector<int32_t>& emitted(int32_t b) const { return sequence(b).emitted; }

  void set_num_threads(int num_threads) { context_->set_num_threads(num_threads); }
  void set_active(std::vector<int32_t> active);
  // A sequence's options hold from its next verify (or prefill) on.
  void set_sampling(int32_t b, const SamplingRule& rule, uint64_t seed);
  /// After one of these a step emits nothing: it is the next root.
  void set_end_tokens(int32_t b, std::vector<int32_t> tokens);
  void keep_logits(int32_t b, bool keep) { sequence(b).keeps_logits = keep; }
  /// Called between the layers of every forward, on the thread that runs it. What it throws leaves
  /// the session as it was before the call; a step stands before its verify.
  void set_interrupt(ForwardObserver check) { interrupt_ = std::move(check); }
  /// Every phase ends when its work has: a clock beside it tells the truth, and no step is
  /// replayed.
  void set_profiling(bool profiling);
  /// Of each kernel while it was profiled, ever since.
  const KernelTimes& kernel_times() const { return times_; }

  /// Appends tokens in chunks; the next token becomes the root. `hidden`, if not null, receives
  /// the final-norm output of every token, [count, H].
  int32_t prefill(int32_t b, const int32_t* tokens, int32_t count, std::vector<float>* hidden);
  /// In the drafting phase: this step appends a piece of a prompt to an active sequence, in the
  /// place of its root and tree. After the last piece the token that follows becomes the root.
  void feed(int32_t b, const std::vector<int32_t>& tokens, bool is_last);
  void truncate(int32_t b, int32_t length, int32_t root);

  /// Starts a sequence afresh, from the longest start of `tokens` that the cache holds, of this or
  /// of another text; returns the rows it has then. The rest, at least the last token, is to be
  /// fed. It can grow to `max_tokens` tokens (0: max_length) whatever the other sequences do.
  /// Throws OutOfMemory, and leaves the sequence empty, where the cache has no room for that.
  int32_t begin(int32_t b, const std::vector<int32_t>& tokens, int32_t max_tokens);
  /// Whether `begin` would find room, for a sequence that is free.
  bool can_begin(const std::vector<int32_t>& tokens, int32_t max_tokens) const;
  /// Forgets a sequence's text; its rows stay for texts that begin alike, until others need the
  /// room: those that were not used for the longest time go first.
  void free(int32_t b);
  CacheStats cache_stats() const { return cache_.stats(); }

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

  /// Rows that `copy_path_hidden` copies: what the last step fed, then its accepted path.
  int32_t num_path_rows(int32_t b) const;
  // Rows of the last verify (of the last prefill: its last row), copied to the host.
  void copy_path_hidden(int32_t b, float* out);
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
  enum class Phase { kIdle, kDrafting, kVerified, kAccepted };

  Sequence& sequence(int32_t b);
  const Sequence& sequence(int32_t b) const;
  void require_phase(Phase phase, const char* call) const;
  void check_token(int32_t token) const;
  std::vector<const std::vector<int32_t>*> texts() const;
  /// Rows of a text of `max_tokens` tokens and the trees after it; checks both arguments.
  int32_t rows_of(const std::vector<int32_t>& tokens, int32_t max_tokens) const;
  void set_chunk(Sequence& s, const int32_t* tokens, int32_t count, bool is_last);
  void prefill_chunks(Sequence& s, const int32_t* tokens, int32_t count,
                      std::vector<float>* hidden);
  /// Makes room for forwards of `num_rows` rows.
  void reserve_rows(int32_t num_rows);
  void allocate_rows();
  void reserve_logits();
  int32_t num_tree_rows() const { return rows_.first_row(static_cast<int32_t>(trees_.size())); }
  bool wants_logits() const;
  void begin_rows(const std::vector<int32_t>& sequences);
  void add_rows();
  /// The forward of the rows that the step's sequences add.
  void run_rows();
  void forward(const RowTable& table);
  void finish_step();
  void end_step();
  void take_results();
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
  /// Of a step that is not replayed after all: the heads' nodes get their tokens.
  void resolve_head_nodes();
  void draft_lookup_branches(Sequence& s, const LookupOptions& options);
  void keep_last_hidden();
  void require_rows(int32_t b) const;
  void copy_rows(float* out, const float* rows, int64_t num_floats);
  NGramIndex& ngrams(Sequence& s, const LookupOptions& options);
  HeadsRunner& runner(const std::shared_ptr<const Heads>& heads);

  std::shared_ptr<const Model> model_;
  std::unique_ptr<Context> context_;
  int32_t max_length_;
  int32_t max_nodes_;
  Decoder decoder_;
  CachePages cache_;
  StepRows rows_;
  std::vector<Sequence> sequences_;
  std::vector<int32_t> active_;
  std::vector<int32_t> drafting_;    // of the active ones, those that drafts are for
  std::vector<Sequence*> stepping_;  // in the step at hand
  std::vector<Sequence*> trees_;     // those of them with a tree, the first of `rows_`
  Sampler sampler_;
  ForwardObserver interrupt_;
  bool has_prefill_logits_ = false;
  Phase phase_ = Phase::kIdle;
  std::atomic_flag busy_ = ATOMIC_FLAG_INIT;

  DeviceArray<float> hidden_;       // [R, H] of the last forward
  DeviceArray<float> last_hidden_;  // [B, H] of each sequence's last accepted node
  DeviceArray<float> logits_;       // [rows of trees, V] of the last forward that stored them
  DeviceArray<int32_t> slots_;      // [B] of a head evaluation
  DeviceArray<int32_t> roots_;      // [B]
  std::vector<int32_t> host_ids_, matches_, node_map_, drafters_;
  StepRing ring_;
  EndTokens end_tokens_;
  std::map<const Heads*, std::pair<std::shared_ptr<const Heads>, HeadsRunner>> runners_;

  bool is_replayed_;               // where the step has no chunks
  bool step_is_replayed_ = false;  // the step at hand
  bool is_profiling_ = false;
  KernelTimes times_;
  StepGraphs graphs_;
  bool is_uploading_ = false;  // the device may still read what `rows_` holds on the host
  std::shared_ptr<const Heads> drafting_heads_;  // that the step will run itself
  int32_t drafting_top_k_ = 0;
};

}  // namespace medusa
