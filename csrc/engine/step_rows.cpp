#include "engine/step_rows.h"

#include <algorithm>

#include "core/token_tree.h"

namespace medusa {

StepRows::StepRows(const Backend& backend, int32_t max_rows, int32_t max_sequences,
                   int32_t max_nodes)
    : backend_(&backend) {
  for (UploadArray<int32_t>* rows : {&tokens_, &parents_, &sequences_, &positions_, &nodes_}) {
    *rows = UploadArray<int32_t>(backend, max_rows);
  }
  for (UploadArray<int32_t>* sequences : {&slots_, &lengths_, &roots_, &num_nodes_}) {
    *sequences = UploadArray<int32_t>(backend, max_sequences);
  }
  first_rows_ = UploadArray<int32_t>(backend, int64_t{max_sequences} + 1);
  ancestors_ = UploadArray<uint64_t>(backend, int64_t{max_rows} * mask_words_for(max_nodes));
  depths_.resize(static_cast<size_t>(std::max(max_rows, max_nodes)));
  clear();
}

void StepRows::clear() {
  for (UploadArray<int32_t>* array : {&tokens_, &parents_, &sequences_, &positions_, &nodes_,
                                      &slots_, &lengths_, &roots_, &num_nodes_}) {
    array->host.clear();
  }
  first_rows_.host.clear();
  first_rows_.host.push_back(0);
  chains_only_ = true;
  max_path_ = 0;
}

void StepRows::begin_sequence(int32_t slot, int32_t length) {
  slots_.host.push_back(slot);
  lengths_.host.push_back(length);
}

void StepRows::add_row(int32_t token, int32_t parent, int32_t position, int32_t node) {
  tokens_.host.push_back(token);
  parents_.host.push_back(parent);
  sequences_.host.push_back(num_sequences() - 1);
  positions_.host.push_back(position);
  nodes_.host.push_back(node);
}

void StepRows::end_sequence(int32_t num_nodes) {
  num_nodes_.host.push_back(num_nodes);
  first_rows_.host.push_back(num_rows());
}

void StepRows::add_chain(int32_t slot, int32_t length, const int32_t* tokens, int32_t count) {
  begin_sequence(slot, length);
  for (int32_t i = 0; i < count; ++i) add_row(tokens[i], i - 1, length + i, i);
  end_sequence(count);
}

void StepRows::add_tree(int32_t slot, int32_t length, const StepTree& tree) {
  begin_sequence(slot, length);
  for (int32_t node = 0; node < tree.num_nodes(); ++node) {
    const size_t i = static_cast<size_t>(node);
    add_row(tree.tokens()[i], tree.parents()[i], length + tree.depths()[i], node);
    chains_only_ = chains_only_ && tree.parents()[i] == node - 1;
    max_path_ = std::max(max_path_, tree.depths()[i] + 1);
  }
  end_sequence(tree.num_nodes());
}

void StepRows::add_drafts(int32_t slot, int32_t length, const StepTree& tree, int32_t num_rows) {
  begin_sequence(slot, length);
  roots_.host.push_back(tree.tokens()[0]);
  for (int32_t node = 0; node < num_rows; ++node) {
    const size_t i = static_cast<size_t>(node);
    const bool is_node = node < tree.num_nodes();
    tokens_.host.push_back(is_node ? tree.tokens()[i] : -1);
    parents_.host.push_back(is_node ? tree.parents()[i] : -1);
  }
  end_sequence(tree.num_nodes());
  max_path_ = num_rows;
}

void StepRows::fill_masks() {
  int32_t most = 0;
  for (int32_t b = 0; b < num_sequences(); ++b) {
    most = std::max(most, first_row(b + 1) - first_row(b));
  }
  const int32_t words = mask_words_for(most);
  ancestors_.host.resize(int64_t{num_rows()} * words);
  for (int32_t b = 0; b < num_sequences(); ++b) {
    const int64_t first = first_row(b);
    fill_ancestors(parents_.host.data() + first, first_row(b + 1) - first_row(b), words,
                   depths_.data(), ancestors_.host.data() + first * words);
  }
}

RowTable StepRows::upload(Context& context) {
  for (UploadArray<int32_t>* array : {&tokens_, &parents_, &sequences_, &positions_, &nodes_,
                                      &slots_, &lengths_, &num_nodes_, &first_rows_}) {
    array->upload(*backend_, context);
  }
  RowTable rows = table();
  if (!chains_only_) {
    fill_masks();
    ancestors_.upload(*backend_, context);
    rows.ancestors = ancestors_.device.data();
    rows.mask_words = static_cast<int32_t>(ancestors_.host.size()) / num_rows();
  }
  return rows;
}

void StepRows::upload_drafts(Context& context) const {
  for (const UploadArray<int32_t>* array : {&slots_, &lengths_, &roots_}) {
    array->upload(*backend_, context);
  }
}

RowTable StepRows::merge(Context& context, MergeDraftsParams drafts) const {
  drafts.num_sequences = num_sequences();
  drafts.max_nodes = max_path_;
  drafts.draft_tokens = tokens_.host.data();
  drafts.draft_parents = parents_.host.data();
  drafts.num_drafts = num_nodes_.host.data();
  drafts.tokens = tokens_.device.data();
  drafts.parents = parents_.device.data();
  drafts.num_nodes = num_nodes_.device.data();
  backend_->kernels->merge_drafts(context, drafts);

  TreeRowsParams trees;
  trees.num_sequences = drafts.num_sequences;
  trees.num_nodes = drafts.max_nodes;
  trees.mask_words = mask_words_for(drafts.max_nodes);
  trees.parents = drafts.parents;
  trees.lengths = lengths_.device.data();
  trees.sequences = sequences_.device.data();
  trees.positions = positions_.device.data();
  trees.nodes = nodes_.device.data();
  trees.first_rows = first_rows_.device.data();
  trees.ancestors = ancestors_.device.data();
  backend_->kernels->tree_rows(context, trees);

  RowTable rows = table();
  rows.ancestors = trees.ancestors;
  rows.mask_words = trees.mask_words;
  return rows;
}

RowTable StepRows::table() const {
  RowTable table;
  table.num_rows = num_rows();
  table.num_sequences = num_sequences();
  table.tokens = tokens_.device.data();
  table.sequences = sequences_.device.data();
  table.positions = positions_.device.data();
  table.nodes = nodes_.device.data();
  table.first_rows = first_rows_.device.data();
  table.cache_slots = slots_.device.data();
  table.lengths = lengths_.device.data();
  return table;
}

}  // namespace medusa
