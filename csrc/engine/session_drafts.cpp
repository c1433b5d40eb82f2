// A session's drafting phase: how trees grow before the forward.
#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "core/checks.h"
#include "engine/session.h"

namespace medusa {
namespace {

void check_top_k(const Heads& heads, int32_t top_k) {
  checked("top_k", top_k, 1, std::min(kMaxHeadRanks, heads.config.draft_vocab_size));
}

void check_lookup(const LookupOptions& options) {
  checked("lookup: max_nodes", options.max_nodes, 0, TokenTree::kMaxNodes);
  checked("lookup: max_branches", options.max_branches, 1, TokenTree::kMaxNodes);
}

}  // namespace

void Session::begin_step() {
  for (int32_t b : active_) {
    if (length(b) < max_length_) continue;
    fail("begin_step: sequence " + std::to_string(b),
         "fewer than max_length = " + std::to_string(max_length_) + " rows", length(b));
  }
  for (int32_t b : active_) sequence(b).begin_step(max_nodes_, max_length_);
  phase_ = Phase::kDrafting;
  drafting_ = active_;
  drafting_heads_ = nullptr;
  drafting_top_k_ = 0;
}

void Session::draft_for(std::vector<int32_t> sequences) {
  require_phase(Phase::kDrafting, "draft_for");
  for (int32_t b : sequences) {
    if (!std::binary_search(active_.begin(), active_.end(), b)) {
      fail("draft_for: sequences", "active ones", b);
    }
  }
  drafting_ = std::move(sequences);
}

int32_t Session::add_node(int32_t b, int32_t parent, int32_t token) {
  require_phase(Phase::kDrafting, "add_node");
  check_token(token);
  return sequence(b).tree.add(parent, token);
}

void Session::set_tree(int32_t b, const std::vector<int32_t>& tokens,
                       const std::vector<int32_t>& parents) {
  require_phase(Phase::kDrafting, "set_tree");
  Sequence& s = sequence(b);
  if (!s.drafts()) fail("set_tree: b", "a sequence with a root that is not fed", b);
  const int32_t num_nodes = static_cast<int32_t>(tokens.size());
  checked("set_tree: nodes", num_nodes, 1, max_nodes_);
  if (parents.size() != tokens.size()) {
    fail("set_tree: parents", "as many as tokens, " + std::to_string(num_nodes),
         static_cast<int64_t>(parents.size()));
  }
  if (tokens[0] != s.root) {
    fail("set_tree: tokens[0]", "the root, " + std::to_string(s.root), tokens[0]);
  }
  if (parents[0] != -1) fail("set_tree: parents[0]", "-1", parents[0]);
  for (int32_t node = 1; node < num_nodes; ++node) {
    check_token(tokens[static_cast<size_t>(node)]);
    checked("set_tree: parents", parents[static_cast<size_t>(node)], 0, node - 1);
  }
  s.tree.reset(s.root, max_nodes_, s.tree.max_depth());
  node_map_.assign(1, 0);
  for (size_t node = 1; node < tokens.size(); ++node) {
    const int32_t parent = node_map_[static_cast<size_t>(parents[node])];
    node_map_.push_back(parent < 0 ? -1 : s.tree.add(parent, tokens[node]));
  }
}

HeadsRunner& Session::runner(const std::shared_ptr<const Heads>& heads) {
  if (heads->model != model_) {
    throw std::invalid_argument("heads: needs heads built for this session's model, got others");
  }
  auto found = runners_.find(heads.get());
  if (found == runners_.end()) {
    found =
        runners_.emplace(heads.get(), std::make_pair(heads, HeadsRunner(*heads, batch()))).first;
  }
  return found->second.second;
}

void Session::head_candidates(const std::shared_ptr<const Heads>& heads, int32_t top_k,
                              std::vector<int32_t>* ids, std::vector<float>* log_probs) {
  evaluate_heads(heads, active_, top_k, ids, log_probs);
}

void Session::evaluate_heads(const std::shared_ptr<const Heads>& heads,
                             const std::vector<int32_t>& sequences, int32_t top_k,
                             std::vector<int32_t>* ids, std::vector<float>* log_probs) {
  check_top_k(*heads, top_k);
  HeadsRunner& evaluation = runner(heads);
  const Backend& backend = model_->backend();
  const size_t size = sequences.size() * static_cast<size_t>(heads->config.num_heads * top_k);
  std::vector<int32_t> roots;
  for (int32_t b : sequences) {
    if (sequence(b).root < 0) fail("heads: sequence " + std::to_string(b), "a prefill first", -1);
    roots.push_back(sequence(b).root);
  }
  const int64_t bytes = static_cast<int64_t>(sequences.size() * sizeof(int32_t));
  backend.copy_in(*context_, slots_.data(), sequences.data(), bytes);
  backend.copy_in(*context_, roots_.data(), roots.data(), bytes);
  evaluation.run(*context_, static_cast<int32_t>(sequences.size()), last_hidden_.data(),
                 slots_.data(), roots_.data(), top_k);
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

void Session::draft_heads(const std::shared_ptr<const Heads>& heads, const TokenTree& tree) {
  require_phase(Phase::kDrafting, "draft_heads");
  const int32_t num_heads = heads->config.num_heads;
  checked("tree: depth", tree.max_depth(), 0, num_heads);
  drafters_.clear();
  for (int32_t b : drafting_) {
    if (sequence(b).drafts() && sequence(b).has_hidden) drafters_.push_back(b);
  }
  if (tree.num_nodes() == 1 || drafters_.empty()) return;
  const int32_t top_k = tree.max_rank() + 1;
  // A recorded step runs one kind of heads.
  const bool is_deferred = is_replayed_ && (!drafting_heads_ || drafting_heads_ == heads);
  if (is_deferred) {
    check_top_k(*heads, top_k);
    runner(heads);
    drafting_heads_ = heads;
    drafting_top_k_ = std::max(drafting_top_k_, top_k);
  } else {
    evaluate_heads(heads, drafters_, top_k, &host_ids_, nullptr);
  }
  for (size_t i = 0; i < drafters_.size(); ++i) {
    const int64_t first = static_cast<int64_t>(i) * num_heads * top_k;
    add_head_nodes(drafters_[i], tree, is_deferred ? nullptr : host_ids_.data() + first, top_k);
  }
}

void Session::add_head_nodes(int32_t b, const TokenTree& tree, const int32_t* ids, int32_t top_k) {
  StepTree& nodes = sequence(b).tree;
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

void Session::resolve_head_nodes() {
  if (!drafting_heads_) return;
  drafters_.clear();
  for (const Sequence* s : trees_) {
    if (s->drafts()) drafters_.push_back(s->slot);
  }
  evaluate_heads(drafting_heads_, drafters_, drafting_top_k_, &host_ids_, nullptr);
  const int32_t* ids = host_ids_.data();
  for (int32_t b : drafters_) {
    StepTree& tree = sequence(b).tree;
    const std::vector<int32_t> tokens = tree.tokens(), parents = tree.parents();
    tree.reset(tokens[0], max_nodes_, tree.max_depth());
    node_map_.assign(1, 0);
    for (size_t node = 1; node < tokens.size(); ++node) {
      const int32_t code = -1 - tokens[node];
      const int32_t place = code / kMaxHeadRanks * drafting_top_k_ + code % kMaxHeadRanks;
      const int32_t token = code < 0 ? tokens[node] : ids[place];
      const int32_t parent = node_map_[static_cast<size_t>(parents[node])];
      node_map_.push_back(parent < 0 ? -1 : tree.add(parent, token));
    }
    ids += drafting_heads_->config.num_heads * drafting_top_k_;
  }
}

NGramIndex& Session::ngrams(Sequence& s, const LookupOptions& options) {
  if (!s.ngrams || s.ngrams->min_ngram() != options.min_ngram ||
      s.ngrams->max_ngram() != options.max_ngram) {
    s.ngrams = std::make_unique<NGramIndex>(options.min_ngram, options.max_ngram);
  }
  NGramIndex& index = *s.ngrams;
  while (index.text().size() < s.text.size()) index.append(s.text[index.text().size()]);
  if (index.text().size() == s.text.size()) index.append(s.root);
  return index;
}

int32_t Session::draft_lookup(const LookupOptions& options) {
  require_phase(Phase::kDrafting, "draft_lookup");
  check_lookup(options);
  int32_t num_matching = 0;
  for (int32_t b : drafting_) {
    Sequence& s = sequence(b);
    if (!s.drafts()) continue;
    ngrams(s, options).matches(options.max_branches, &matches_);
    if (matches_.empty()) continue;
    ++num_matching;
    draft_lookup_branches(s, options);
  }
  return num_matching;
}

std::vector<int32_t> Session::look_up(int32_t b, const LookupOptions& options) {
  check_lookup(options);
  Sequence& s = sequence(b);
  if (s.root < 0) fail("look_up: sequence " + std::to_string(b), "a prefill first", s.root);
  ngrams(s, options).matches(1, &matches_);
  std::vector<int32_t> tokens;
  if (matches_.empty()) return tokens;
  for (int32_t i = 0; i < options.max_nodes; ++i) {
    tokens.push_back(s.ngrams->continuation(matches_[0], i));
  }
  return tokens;
}

void Session::draft_lookup_branches(Sequence& s, const LookupOptions& options) {
  // The best match gets half of the nodes, the next half of the rest; the last all that is left.
  int32_t budget = options.max_nodes;
  for (size_t i = 0; i < matches_.size() && budget > 0; ++i) {
    const bool is_last = i + 1 == matches_.size();
    const int32_t share = is_last ? budget : (budget + 1) / 2;
    int32_t node = 0;
    for (int32_t step = 0; step < share; ++step) {
      const int32_t before = s.tree.num_nodes();
      node = s.tree.add(node, s.ngrams->continuation(matches_[i], step));
      if (node < 0) break;
      budget -= s.tree.num_nodes() - before;
    }
  }
}

}  // namespace medusa
