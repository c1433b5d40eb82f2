#include "engine/head_drafts.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "core/checks.h"

namespace medusa {
namespace {

void check_top_k(const Heads& heads, int32_t top_k) {
  checked("top_k", top_k, 1, std::min(kMaxHeadRanks, heads.config.draft_vocab_size));
}

}  // namespace

HeadDrafts::HeadDrafts(std::shared_ptr<const Model> model, Context& context,
                       const float* last_hidden, int32_t batch)
    : model_(std::move(model)),
      context_(&context),
      last_hidden_(last_hidden),
      batch_(batch),
      slots_(model_->backend(), batch),
      roots_(model_->backend(), batch) {}

HeadsRunner& HeadDrafts::runner(const std::shared_ptr<const Heads>& heads) {
  if (heads->model != model_) {
    throw std::invalid_argument("heads: needs heads built for this session's model, got others");
  }
  auto found = runners_.find(heads.get());
  if (found == runners_.end()) {
    found = runners_.emplace(heads.get(), std::make_pair(heads, HeadsRunner(*heads, batch_))).first;
  }
  return found->second.second;
}

void HeadDrafts::candidates(const std::shared_ptr<const Heads>& heads,
                            const std::vector<Sequence*>& sequences, int32_t top_k,
                            std::vector<int32_t>* ids, std::vector<float>* log_probs) {
  check_top_k(*heads, top_k);
  HeadsRunner& evaluation = runner(heads);
  const Backend& backend = model_->backend();
  host_slots_.clear();
  host_roots_.clear();
  for (const Sequence* s : sequences) {
    if (s->root < 0) fail("heads: sequence " + std::to_string(s->slot), "a prefill first", -1);
    host_slots_.push_back(s->slot);
    host_roots_.push_back(s->root);
  }
  const int64_t bytes = static_cast<int64_t>(sequences.size() * sizeof(int32_t));
  backend.copy_in(*context_, slots_.data(), host_slots_.data(), bytes);
  backend.copy_in(*context_, roots_.data(), host_roots_.data(), bytes);
  evaluation.run(*context_, static_cast<int32_t>(sequences.size()), last_hidden_, slots_.data(),
                 roots_.data(), top_k);
  const size_t size = sequences.size() * static_cast<size_t>(heads->config.num_heads * top_k);
  ids->resize(size);
  backend.copy_out(*context_, ids->data(), evaluation.top_ids(),
                   static_cast<int64_t>(size * sizeof(int32_t)));
  if (log_probs) {
    log_probs->resize(size);
    backend.copy_out(*context_, log_probs->data(), evaluation.top_log_probs(),
                     static_cast<int64_t>(size * sizeof(float)));
  }
  backend.synchronize(*context_);
}

void HeadDrafts::select_drafters(const std::vector<Sequence*>& sequences) {
  drafters_.clear();
  for (Sequence* s : sequences) {
    if (s->drafts() && s->has_hidden) drafters_.push_back(s);
  }
}

void HeadDrafts::add(const std::shared_ptr<const Heads>& heads, const TokenTree& tree,
                     const std::vector<Sequence*>& sequences, bool is_open) {
  const int32_t num_heads = heads->config.num_heads;
  checked("tree: depth", tree.max_depth(), 0, num_heads);
  select_drafters(sequences);
  if (tree.num_nodes() == 1 || drafters_.empty()) return;
  const int32_t top_k = tree.max_rank() + 1;
  // A step runs one kind of heads.
  is_open = is_open && (!open_ || open_ == heads);
  if (is_open) {
    check_top_k(*heads, top_k);
    runner(heads);
    open_top_k_ = std::max(open_ ? open_top_k_ : 0, top_k);
    open_ = heads;
  } else {
    candidates(heads, drafters_, top_k, &host_ids_, nullptr);
  }
  const int32_t* ids = is_open ? nullptr : host_ids_.data();
  for (Sequence* s : drafters_) {
    add_nodes(s->tree, tree, ids, top_k);
    if (ids) ids += num_heads * top_k;
  }
}

void HeadDrafts::add_nodes(StepTree& nodes, const TokenTree& tree, const int32_t* ids,
                           int32_t top_k) {
  node_map_.assign(1, 0);
  for (int32_t k = 0; k < tree.max_depth(); ++k) {
    const auto depth = tree.depth_offsets().begin() + k + 1;
    for (int32_t node = depth[0]; node < depth[1]; ++node) {
      const size_t n = static_cast<size_t>(node);
      const int32_t parent = node_map_[static_cast<size_t>(tree.parents()[n])];
      const int32_t rank = tree.ranks()[n];
      const int32_t token = ids ? ids[k * top_k + rank] : head_draft(k, rank);
      node_map_.push_back(parent < 0 ? -1 : nodes.add(parent, token));
    }
  }
}

MergeDraftsParams HeadDrafts::run(const StepRows& rows, const Heads* heads, int32_t top_k) {
  MergeDraftsParams drafts;
  if (!heads) return drafts;
  HeadsRunner& evaluation = runners_.at(heads).second;
  evaluation.run(*context_, rows.num_sequences(), last_hidden_, rows.slots(), rows.roots(), top_k);
  drafts.num_heads = heads->config.num_heads;
  drafts.top_k = top_k;
  drafts.top_ids = evaluation.top_ids();
  return drafts;
}

void HeadDrafts::resolve(const std::vector<Sequence*>& sequences) {
  if (!open_) return;
  select_drafters(sequences);
  candidates(open_, drafters_, open_top_k_, &host_ids_, nullptr);
  const int32_t* ids = host_ids_.data();
  for (Sequence* s : drafters_) {
    resolve_nodes(s->tree, ids);
    ids += open_->config.num_heads * open_top_k_;
  }
  open_ = nullptr;
}

void HeadDrafts::resolve_nodes(StepTree& tree, const int32_t* ids) {
  std::vector<int32_t> tokens = tree.tokens();
  const std::vector<int32_t> parents = tree.parents();
  for (int32_t& token : tokens) {
    const int32_t code = -1 - token;
    if (code >= 0) token = ids[code / kMaxHeadRanks * open_top_k_ + code % kMaxHeadRanks];
  }
  tree.assign(tokens, parents);
}

}  // namespace medusa
