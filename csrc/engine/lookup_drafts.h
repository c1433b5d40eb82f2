// What lookup drafts: continuations of what a sequence's text ends with.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/sequence.h"

namespace medusa {

struct LookupOptions {
  int32_t max_nodes = 0;  // drafted nodes at most
  int32_t max_ngram = 0;
  int32_t min_ngram = 0;
  int32_t max_branches = 0;
};

class LookupDrafts {
 public:
  /// Adds matches' continuations to the trees of those `sequences` that can have them; how many
  /// had a match.
  int32_t add(const std::vector<Sequence*>& sequences, const LookupOptions& options);
  /// The best match's tokens, for a sequence with a root; none without a match.
  std::vector<int32_t> look_up(Sequence& s, const LookupOptions& options);

 private:
  void find_matches(Sequence& s, const LookupOptions& options, int32_t max_matches);
  void add_branches(Sequence& s, int32_t max_nodes);

  std::vector<int32_t> matches_;
};

}  // namespace medusa
