#include "engine/lookup_drafts.h"

#include <memory>
#include <string>

#include "core/checks.h"
#include "core/token_tree.h"

namespace medusa {
namespace {

void check_lookup(const LookupOptions& options) {
  checked("lookup: max_nodes", options.max_nodes, 0, TokenTree::kMaxNodes);
  checked("lookup: max_branches", options.max_branches, 1, TokenTree::kMaxNodes);
}

}  // namespace

void LookupDrafts::find_matches(Sequence& s, const LookupOptions& options, int32_t max_matches) {
  if (!s.ngrams || s.ngrams->min_ngram() != options.min_ngram ||
      s.ngrams->max_ngram() != options.max_ngram) {
    s.ngrams = std::make_unique<NGramIndex>(options.min_ngram, options.max_ngram);
  }
  NGramIndex& index = *s.ngrams;
  while (index.text().size() < s.text.size()) index.append(s.text[index.text().size()]);
  if (index.text().size() == s.text.size()) index.append(s.root);
  index.matches(max_matches, &matches_);
}

int32_t LookupDrafts::add(const std::vector<Sequence*>& sequences, const LookupOptions& options) {
  check_lookup(options);
  int32_t num_matching = 0;
  for (Sequence* s : sequences) {
    if (!s->drafts()) continue;
    find_matches(*s, options, options.max_branches);
    if (matches_.empty()) continue;
    ++num_matching;
    add_branches(*s, options.max_nodes);
  }
  return num_matching;
}

void LookupDrafts::add_branches(Sequence& s, int32_t max_nodes) {
  // The best match gets half of the nodes, the next half of the rest; the last all that is left.
  int32_t budget = max_nodes;
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

std::vector<int32_t> LookupDrafts::look_up(Sequence& s, const LookupOptions& options) {
  check_lookup(options);
  if (s.root < 0) fail("look_up: sequence " + std::to_string(s.slot), "a prefill first", s.root);
  find_matches(s, options, 1);
  std::vector<int32_t> tokens;
  if (matches_.empty()) return tokens;
  for (int32_t i = 0; i < options.max_nodes; ++i) {
    tokens.push_back(s.ngrams->continuation(matches_[0], i));
  }
  return tokens;
}

}  // namespace medusa
