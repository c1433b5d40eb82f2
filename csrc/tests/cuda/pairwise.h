// Covering arrays of strength 2: few rows in which every pair of values of every two factors
// occurs.
#pragma once

#include <algorithm>
#include <random>
#include <vector>

namespace medusa::cuda::testing {

/// levels[f] values of factor f; each row holds an index per factor. Greedy: a row starts at a pair
/// that is not covered yet and takes, factor by factor, the value that covers the most new pairs.
inline std::vector<std::vector<int>> pairwise(const std::vector<int>& levels, unsigned seed = 1) {
  const int num_factors = static_cast<int>(levels.size());
  const int max_level = *std::max_element(levels.begin(), levels.end());
  std::vector<bool> covered(static_cast<size_t>(num_factors) * num_factors * max_level * max_level);
  const auto pair = [&](int f, int a, int g, int b) {
    if (f > g) return ((static_cast<size_t>(g) * num_factors + f) * max_level + b) * max_level + a;
    return ((static_cast<size_t>(f) * num_factors + g) * max_level + a) * max_level + b;
  };
  std::mt19937 random(seed);
  std::vector<std::vector<int>> rows;
  for (int f = 0; f < num_factors; ++f) {
    for (int g = f + 1; g < num_factors; ++g) {
      for (int a = 0; a < levels[f]; ++a) {
        for (int b = 0; b < levels[g]; ++b) {
          if (covered[pair(f, a, g, b)]) continue;
          std::vector<int> row(levels.size(), -1);
          row[f] = a;
          row[g] = b;
          for (int h = 0; h < num_factors; ++h) {
            if (row[h] >= 0) continue;
            int best = -1, best_new = -1;
            const int offset = static_cast<int>(random() % static_cast<unsigned>(levels[h]));
            for (int i = 0; i < levels[h]; ++i) {
              const int value = (i + offset) % levels[h];
              int num_new = 0;
              for (int other = 0; other < num_factors; ++other) {
                if (row[other] >= 0 && !covered[pair(h, value, other, row[other])]) ++num_new;
              }
              if (num_new > best_new) {
                best_new = num_new;
                best = value;
              }
            }
            row[h] = best;
          }
          for (int x = 0; x < num_factors; ++x) {
            for (int y = x + 1; y < num_factors; ++y) covered[pair(x, row[x], y, row[y])] = true;
          }
          rows.push_back(row);
        }
      }
    }
  }
  return rows;
}

}  // namespace medusa::cuda::testing
