#include "engine/lookup.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "core/noise.h"

namespace medusa {
namespace {

/// Occurrences looked at per n: a bound on the work where one n-gram fills the text.
constexpr int32_t kMaxChain = 64;

}  // namespace

NGramIndex::NGramIndex(int32_t min_ngram, int32_t max_ngram)
    : min_ngram_(min_ngram), max_ngram_(max_ngram) {
  if (min_ngram < 1 || max_ngram < min_ngram || max_ngram > 16) {
    throw std::invalid_argument("lookup: n-grams, needs 1 <= min_ngram <= max_ngram <= 16, got " +
                                std::to_string(min_ngram) + " and " + std::to_string(max_ngram));
  }
  tables_.resize(static_cast<size_t>(max_ngram - min_ngram + 1));
}

uint64_t NGramIndex::hash_ending_at(int32_t end, int32_t n) const {
  uint64_t hash = 0;
  for (int32_t i = end - n; i < end; ++i) {
    hash = mix_bits(hash + static_cast<uint32_t>(text_[static_cast<size_t>(i)]) + 1);
  }
  return hash;
}

bool NGramIndex::same_ngram(int32_t end, int32_t other_end, int32_t n) const {
  return std::equal(text_.begin() + (end - n), text_.begin() + end,
                    text_.begin() + (other_end - n));
}

void NGramIndex::append(int32_t token) {
  text_.push_back(token);
  const int32_t end = static_cast<int32_t>(text_.size());
  for (int32_t n = min_ngram_; n <= max_ngram_; ++n) {
    Table& table = tables_[static_cast<size_t>(n - min_ngram_)];
    int32_t previous = 0;
    if (end >= n) {
      int32_t& latest = table.latest[hash_ending_at(end, n)];
      previous = latest;
      latest = end;
    }
    table.previous.push_back(previous);
  }
}

void NGramIndex::truncate(int32_t length) {
  while (static_cast<int32_t>(text_.size()) > length) {
    const int32_t end = static_cast<int32_t>(text_.size());
    for (int32_t n = min_ngram_; n <= max_ngram_; ++n) {
      Table& table = tables_[static_cast<size_t>(n - min_ngram_)];
      if (end >= n) {
        const uint64_t hash = hash_ending_at(end, n);
        if (table.previous.back() > 0) {
          table.latest[hash] = table.previous.back();
        } else {
          table.latest.erase(hash);
        }
      }
      table.previous.pop_back();
    }
    text_.pop_back();
  }
}

void NGramIndex::matches(int32_t max_matches, std::vector<int32_t>* positions) const {
  positions->clear();
  const int32_t end = static_cast<int32_t>(text_.size());
  const auto is_new = [&](int32_t position) {
    return std::none_of(positions->begin(), positions->end(), [&](int32_t other) {
      return text_[static_cast<size_t>(other)] == text_[static_cast<size_t>(position)];
    });
  };
  for (int32_t n = std::min(max_ngram_, end - 1); n >= min_ngram_; --n) {
    const Table& table = tables_[static_cast<size_t>(n - min_ngram_)];
    int32_t position = table.previous[static_cast<size_t>(end - 1)];
    for (int32_t i = 0; i < kMaxChain && position > 0; ++i) {
      if (same_ngram(position, end, n) && is_new(position)) {
        positions->push_back(position);
        if (static_cast<int32_t>(positions->size()) == max_matches) return;
      }
      position = table.previous[static_cast<size_t>(position - 1)];
    }
  }
}

int32_t NGramIndex::continuation(int32_t position, int32_t i) const {
  const int32_t period = static_cast<int32_t>(text_.size()) - position;
  return text_[static_cast<size_t>(position + i % period)];
}

}  // namespace medusa
