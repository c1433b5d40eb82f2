// Prompts into a session's cache: as pieces beside other sequences' trees, or as a whole.
#include <algorithm>
#include <string>

#include "core/checks.h"
#include "engine/session.h"

namespace medusa {
namespace {

/// Rows of one prefill forward: enough for the arithmetic limit, small enough for its buffers.
constexpr int32_t kPrefillChunk = 512;

}  // namespace

void Session::set_chunk(Sequence& s, const int32_t* tokens, int32_t count, bool is_last) {
  const int32_t before = is_last ? count - 1 : count;
  s.is_fed = true;
  s.chunk.assign(tokens, tokens + before);
  s.tree.clear();
  if (is_last) s.tree.reset(tokens[before], 1, 0);
}

void Session::feed(int32_t b, const std::vector<int32_t>& tokens, bool is_last) {
  require_phase(Phase::kDrafting, "feed");
  Sequence& s = sequence(b);
  if (!std::binary_search(active_.begin(), active_.end(), b)) fail("feed: b", "an active one", b);
  if (s.is_fed) fail("feed: b", "a sequence not fed in this step", b);
  const auto count = static_cast<int32_t>(tokens.size());
  checked("feed: tokens", count, 1, std::max(max_length_ - s.length(), 0));
  for (int32_t token : tokens) check_token(token);
  set_chunk(s, tokens.data(), count, is_last);
}

int32_t Session::prefill(int32_t b, const int32_t* tokens, int32_t count,
                         std::vector<float>* hidden) {
  Sequence& s = sequence(b);
  checked("prompt tokens", count, 1, std::max(max_length_ - s.length(), 0));
  for (int32_t i = 0; i < count; ++i) check_token(tokens[i]);
  const int32_t start = s.length(), root = s.root;
  try {
    prefill_chunks(s, tokens, count, hidden);
  } catch (...) {
    truncate(b, start, root);
    throw;
  }
  has_prefill_logits_ = s.has_logits;
  return s.root;
}

void Session::prefill_chunks(Sequence& s, const int32_t* tokens, int32_t count,
                             std::vector<float>* hidden) {
  const int64_t width = model_->config().hidden_size;
  if (hidden) hidden->resize(static_cast<size_t>(count * width));
  phase_ = Phase::kIdle;
  step_is_replayed_ = has_prefill_logits_ = false;
  for (int32_t begin = 0; begin < count; begin += kPrefillChunk) {
    const int32_t rows = std::min(kPrefillChunk, count - begin);
    set_chunk(s, tokens + begin, rows, begin + rows == count);
    begin_rows({s.slot});
    run_rows();
    sampler_.accept(*context_, rows_, logits_.data());
    end_step();
    if (hidden) copy_path_hidden(s.slot, hidden->data() + begin * width);
  }
}

}  // namespace medusa
