// Prompt lookup: continuations of earlier occurrences of the text's last n tokens.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

namespace medusa {

/// The n-grams of one growing text, for all n in a range. Occurrences of an n-gram form a chain
/// from the latest to the earliest, so appending and looking up take constant time per n.
/// Source: prompt lookup decoding (Saxena 2023), with several continuations as branches.
class NGramIndex {
 public:
  NGramIndex(int32_t min_ngram, int32_t max_ngram);

  int32_t min_ngram() const { return min_ngram_; }
  int32_t max_ngram() const { return max_ngram_; }
  const std::vector<int32_t>& text() const { return text_; }

  void append(int32_t token);
  /// Forgets the text from `length` tokens on.
  void truncate(int32_t length);

  /// Where the text's last tokens occurred before: positions after an earlier occurrence of the
  /// last n tokens, longest n first, latest occurrence first, at most one per next token.
  void matches(int32_t max_matches, std::vector<int32_t>* positions) const;

  /// Token i of the continuation from `position` on; after the text's end the continuation
  /// repeats itself, as a loop would.
  int32_t continuation(int32_t position, int32_t i) const;

 private:
  struct Table {
    std::unordered_map<uint64_t, int32_t> latest;  // hash -> end of its latest occurrence
    std::vector<int32_t> previous;                 // [text] end of the one before, or 0
  };

  uint64_t hash_ending_at(int32_t end, int32_t n) const;
  bool same_ngram(int32_t end, int32_t other_end, int32_t n) const;

  int32_t min_ngram_;
  int32_t max_ngram_;
  std::vector<int32_t> text_;
  std::vector<Table> tables_;  // one per n
};

}  // namespace medusa
