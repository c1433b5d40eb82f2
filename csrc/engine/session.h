// A session: the cache and state of B sequences, and the phases of a decoding step.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/profiled_table.h"
#include "core/token_tree.h"
#include "engine/executor.h"
#include "engine/head_drafts.h"
#include "engine/lookup_drafts.h"
#include "engine/sequence.h"
#include "engine/step.h"
#include "model/model.h"

namespace medusa {

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
  /// Kinds of steps that were recorded to be replayed; 0 where the backend does not.
  size_t num_recorded_steps() const { return recorded_ ? recorded_->num_recorded() : 0; }

  void set_num_threads(int num_threads) { context_->set_num_threads(num_threads); }
  void set_active(std::vector<int32_t> active);
  // A sequence's options hold from its next verify (or prefill) on.
  void set_sampling(int32_t b, const SamplingRule& rule, uint64_t seed);
  /// After one of these a step emits nothing: it is the next root.
  void set_end_tokens(int32_t b, std::vector<int32_t> tokens);
  void keep_logits(int32_t b, bool keep) { sequence(b).keeps_logits = keep; }
  /// Called between the layers of every forward, on the thread that runs it. What it throws leaves
  /// the session as it was before the call; a step stands before its verify.
  void set_interrupt(ForwardObserver check) { step_.set_interrupt(std::move(check)); }
  /// Every phase ends when its work has: a clock beside it tells the truth, and no step is
  /// replayed.
  void set_profiling(bool profiling);
  /// Of each kernel while it was profiled, ever since.
  const KernelTimes& kernel_times() const { return times_; }

  /// Appends tokens in chunks; the next token becomes the root. `hidden`, if not null, receives
  /// the final-norm output of every token, [count, H]. Throws what `failure` says where no token
  /// follows. An exception leaves text and root as they were, as after `truncate`.
  int32_t prefill(int32_t b, const int32_t* tokens, int32_t count, std::vector<float>* hidden);
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
  CacheStats cache_stats() const { return step_.cache().stats(); }

  void begin_step();
  /// In the drafting phase: this step appends a piece of a prompt to an active sequence, in the
  /// place of its root and tree. After the last piece the token that follows becomes the root.
  void feed(int32_t b, const std::vector<int32_t>& tokens, bool is_last);
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
  /// Where the last step's logits of a sequence were not finite, so that no token followed: the
  /// layer in which numbers stop being so, searched for now. Its text ends with its path, it has no
  /// root. Empty otherwise. Rows of the step that were not copied before are lost.
  std::string failure(int32_t b);
  /// Throws std::runtime_error with the first failure of the last step, if there is one.
  void check_finite();

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
  const std::vector<Sequence*>& select(const std::vector<int32_t>& sequences);
  bool is_active(int32_t b) const;
  void require_rows(int32_t b) const;
  void require_phase(Phase phase, const char* call) const;
  void end_phase(Phase phase);
  void check_token(int32_t token) const;
  std::vector<const std::vector<int32_t>*> texts() const;
  /// Rows of a text of `max_tokens` tokens and the trees after it; checks both arguments.
  int32_t rows_of(const std::vector<int32_t>& tokens, int32_t max_tokens) const;
  void prefill_chunks(Sequence& s, const int32_t* tokens, int32_t count,
                      std::vector<float>* hidden);

  std::shared_ptr<const Model> model_;
  std::unique_ptr<Context> context_;
  int32_t max_length_;
  int32_t max_nodes_;
  std::vector<Sequence> sequences_;
  std::vector<int32_t> active_;
  std::vector<int32_t> drafting_;    // of the active ones, those that drafts are for
  std::vector<Sequence*> selected_;  // scratch: the sequences of a call
  Step step_;
  HeadDrafts head_drafts_;
  LookupDrafts lookup_drafts_;
  EagerExecutor eager_;
  std::unique_ptr<RecordedExecutor> recorded_;  // where steps can be recorded
  Executor* usual_ = &eager_;                   // of steps without prompts
  Executor* executor_ = &eager_;                // of the step at hand
  Phase phase_ = Phase::kIdle;
  bool is_profiling_ = false;
  KernelTimes times_;
  const Sequence* prefilled_ = nullptr;  // whose prefill was the last forward
  std::atomic_flag busy_ = ATOMIC_FLAG_INIT;
};

}  // namespace medusa
