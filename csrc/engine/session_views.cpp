// What callers see of a session's last step.
#include <stdexcept>
#include <string>

#include "core/checks.h"
#include "engine/session.h"

namespace medusa {

void Session::require_rows(int32_t b) const {
  if (!is_active(b)) fail("sequence", "an active one", b);
  if (sequence(b).num_chunk_rows + sequence(b).num_tree_rows > 0) return;
  throw std::logic_error("session: there was no step yet");
}

int32_t Session::num_path_rows(int32_t b) const {
  return sequence(b).num_chunk_rows + static_cast<int32_t>(sequence(b).path.size());
}

std::string Session::failure(int32_t b) {
  return sequence(b).has_failed ? step_.failure(sequence(b)) : "";
}

void Session::check_finite() {
  for (int32_t b = 0; b < batch(); ++b) {
    if (sequence(b).has_failed) throw std::runtime_error(failure(b));
  }
}

void Session::copy_path_hidden(int32_t b, float* out) {
  if (num_path_rows(b) > 0) require_rows(b);
  step_.copy_path_hidden(sequence(b), out);
}

void Session::copy_logits(int32_t b, int32_t node, float* out) {
  require_rows(b);
  const Sequence& s = sequence(b);
  if (!s.has_logits) {
    throw std::logic_error("logits: not kept in the last step; call keep_logits before it");
  }
  checked("node", node, 0, s.num_tree_rows - 1);
  step_.copy_logits(s, node, out);
}

void Session::copy_prefill_logits(float* out) {
  if (!prefilled_ || !prefilled_->has_logits) {
    throw std::logic_error("logits: not kept in the last prefill; call keep_logits before it");
  }
  step_.copy_logits(*prefilled_, 0, out);
}

}  // namespace medusa
