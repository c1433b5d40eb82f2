#include "engine/step.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace medusa {
namespace {

/// Rows of a chunk that share a mask with trees: one word's worth, so that trees' masks stay small.
constexpr int32_t kPieceRows = 64;

}  // namespace

Step::Step(std::shared_ptr<const Model> model, Context& context, const SessionSizes& sizes,
           DType kv_dtype, int64_t kv_memory)
    : model_(std::move(model)),
      context_(&context),
      sizes_(sizes),
      decoder_(model_,
               std::max(std::min(kChunkRows, sizes.max_length), sizes.batch * sizes.max_nodes),
               sizes.max_length),
      cache_(*model_, kv_dtype, sizes.batch, sizes.max_length + sizes.max_nodes, kv_memory),
      sampler_(model_->backend(), model_->config().vocab_size, sizes.batch, sizes.max_nodes),
      ring_(model_->backend(), sizes.batch, sizes.max_nodes),
      end_tokens_(model_->backend(), context, sizes.batch),
      last_hidden_(model_->backend(), int64_t{sizes.batch} * model_->config().hidden_size) {
  allocate_rows();
}

void Step::allocate_rows() {
  const Backend& backend = model_->backend();
  const int32_t max_rows = decoder_.max_rows();
  const int32_t max_entries = 2 * sizes_.batch + max_rows / kPieceRows;
  rows_ = StepRows(backend, max_rows, max_entries, std::max(sizes_.max_nodes, kPieceRows));
  hidden_ = DeviceArray<float>(backend, int64_t{max_rows} * model_->config().hidden_size);
}

void Step::reserve_rows(int32_t num_rows) {
  if (num_rows <= decoder_.max_rows()) return;
  model_->backend().synchronize(*context_);
  decoder_ = Decoder(model_, std::max(num_rows, decoder_.max_rows() * 3 / 2), sizes_.max_length);
  allocate_rows();
  ++version_;
}

void Step::reserve_logits() {
  const int64_t size = int64_t{num_tree_rows()} * model_->config().vocab_size;
  if (!wants_logits() || size <= logits_.size()) return;
  logits_ = DeviceArray<float>(model_->backend(), size);
  ++logits_version_;
}

void Step::set_end_tokens(int32_t slot, std::vector<int32_t> tokens) {
  if (end_tokens_.set(*context_, slot, std::move(tokens))) ++version_;
}

void Step::begin(const std::vector<Sequence*>& sequences) {
  if (is_uploading_) model_->backend().synchronize(*context_);
  is_uploading_ = false;
  rows_.clear();
  for (Sequence* s : sequences_) s->forget_rows();
  sequences_ = sequences;
  trees_.clear();
  for (Sequence* s : sequences_) {
    if (s->tree.num_nodes() == 0) continue;
    trees_.push_back(s);
    s->has_logits = s->wants_logits();
  }
}

bool Step::has_chunks() const {
  return std::any_of(sequences_.begin(), sequences_.end(),
                     [](const Sequence* s) { return !s->chunk.empty(); });
}

bool Step::wants_logits() const {
  return std::any_of(trees_.begin(), trees_.end(),
                     [](const Sequence* s) { return s->wants_logits(); });
}

void Step::add_rows() {
  reserve_rows(std::accumulate(sequences_.begin(), sequences_.end(), 0,
                               [](int32_t sum, const Sequence* s) { return sum + s->num_rows(); }));
  for (const Sequence* s : sequences_) {
    cache_.reserve(*context_, s->slot, s->length(), s->length() + s->num_rows());
  }
  for (Sequence* s : trees_) {
    s->tree_row = rows_.num_rows();
    s->num_tree_rows = s->tree.num_nodes();
    rows_.add_tree(s->slot, s->root_position(), s->tree);
  }
  for (Sequence* s : sequences_) {
    const auto count = static_cast<int32_t>(s->chunk.size());
    if (count == 0) continue;
    s->chunk_row = rows_.num_rows();
    s->num_chunk_rows = count;
    const int32_t piece = rows_.is_chains_only() ? count : kPieceRows;
    for (int32_t begin = 0; begin < count; begin += piece) {
      rows_.add_chain(s->slot, s->length() + begin, s->chunk.data() + begin,
                      std::min(piece, count - begin));
    }
  }
  reserve_logits();
  sampler_.begin(rows_, trees_);
}

void Step::add_padded_trees(int32_t num_nodes) {
  for (Sequence* s : trees_) {
    s->tree_row = rows_.num_rows();
    s->num_tree_rows = s->tree.num_nodes();
    cache_.reserve(*context_, s->slot, s->length(), s->root_position() + num_nodes);
    rows_.add_drafts(s->slot, s->root_position(), s->tree, num_nodes);
  }
  reserve_logits();
  sampler_.begin(rows_, trees_);
  is_uploading_ = true;
}

RowTable Step::upload() {
  is_uploading_ = true;
  return rows_.upload(*context_);
}

void Step::forward(const RowTable& table) {
  ForwardOutputs outputs;
  outputs.hidden = hidden_.data();
  outputs.num_targets = num_tree_rows();
  outputs.targets = sampler_.targets();
  if (wants_logits()) outputs.logits = logits_.data();
  decoder_.forward(*context_, table, cache_.storage().layers(), outputs, interrupt_);
  if (!outputs.logits) return;
  ArgmaxParams argmax;
  argmax.num_rows = outputs.num_targets;
  argmax.width = model_->config().vocab_size;
  argmax.logits = outputs.logits;
  argmax.row_stride = argmax.width;
  argmax.out = outputs.targets;
  model_->backend().kernels->argmax(*context_, argmax);
}

void Step::accept() { sampler_.accept(*context_, rows_, logits_.data()); }

}  // namespace medusa
