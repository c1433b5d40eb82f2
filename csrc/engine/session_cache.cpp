// A session's share of the K/V cache: where new texts start from, and what finished ones leave.
#include <algorithm>

#include "core/checks.h"
#include "engine/session.h"

namespace medusa {

std::vector<const std::vector<int32_t>*> Session::texts() const {
  std::vector<const std::vector<int32_t>*> texts;
  texts.reserve(sequences_.size());
  for (const Sequence& s : sequences_) texts.push_back(&s.text);
  return texts;
}

int32_t Session::rows_of(const std::vector<int32_t>& tokens, int32_t max_tokens) const {
  const int32_t count = static_cast<int32_t>(tokens.size());
  checked("prompt tokens", count, 1, max_length_);
  for (int32_t token : tokens) check_token(token);
  const int32_t most = max_tokens == 0 ? max_length_ : max_tokens;
  return checked("max_tokens", most, count, max_length_) + step_.sizes().max_nodes;
}

bool Session::can_begin(const std::vector<int32_t>& tokens, int32_t max_tokens) const {
  return step_.cache().can_begin(tokens, rows_of(tokens, max_tokens), texts());
}

int32_t Session::begin(int32_t b, const std::vector<int32_t>& tokens, int32_t max_tokens) {
  const int32_t num_rows = rows_of(tokens, max_tokens);
  free(b);
  const int32_t reused = step_.cache().begin(*context_, b, tokens, num_rows, texts());
  sequence(b).text.assign(tokens.begin(), tokens.begin() + reused);
  return reused;
}

void Session::free(int32_t b) {
  Sequence& s = sequence(b);
  step_.cache().release(b, s.text);
  s.text.clear();
  truncate(b, 0, -1);
}

}  // namespace medusa
