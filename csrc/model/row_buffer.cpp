#include "model/row_buffer.h"

#include <algorithm>

#include "core/token_tree.h"

namespace medusa {

RowBuffer::RowBuffer(const Backend& backend, int32_t max_rows, int32_t max_sequences,
                     int32_t max_nodes)
    : backend_(&backend) {
  for (Mirror<int32_t>* rows : {&tokens_, &parents_, &sequences_, &positions_, &nodes_}) {
    rows->allocate(backend, max_rows);
  }
  for (Mirror<int32_t>* sequences : {&slots_, &lengths_, &num_nodes_}) {
    sequences->allocate(backend, max_sequences);
  }
  first_rows_.allocate(backend, int64_t{max_sequences} + 1);
  ancestors_.allocate(backend, int64_t{max_rows} * mask_words_for(max_nodes));
  depths_.resize(static_cast<size_t>(std::max(max_rows, max_nodes)));
  clear();
}

void RowBuffer::clear() {
  for (Mirror<int32_t>* array :
       {&tokens_, &parents_, &sequences_, &positions_, &nodes_, &slots_, &lengths_, &num_nodes_}) {
    array->host.clear();
  }
  first_rows_.host.assign(1, 0);
  chains_only_ = true;
  max_path_ = 0;
}

void RowBuffer::begin_sequence(int32_t slot, int32_t length) {
  slots_.host.push_back(slot);
  lengths_.host.push_back(length);
}

void RowBuffer::end_sequence() {
  num_nodes_.host.push_back(num_rows() - first_rows_.host.back());
  first_rows_.host.push_back(num_rows());
}

void RowBuffer::add_chain(int32_t slot, int32_t length, const int32_t* tokens, int32_t count) {
  begin_sequence(slot, length);
  for (int32_t i = 0; i < count; ++i) {
    tokens_.host.push_back(tokens[i]);
    parents_.host.push_back(i - 1);
    sequences_.host.push_back(num_sequences() - 1);
    positions_.host.push_back(length + i);
    nodes_.host.push_back(i);
  }
  end_sequence();
  max_path_ = std::max(max_path_, count);
}

void RowBuffer::add_tree(int32_t slot, int32_t length, const StepTree& tree) {
  begin_sequence(slot, length);
  for (int32_t node = 0; node < tree.num_nodes(); ++node) {
    const size_t i = static_cast<size_t>(node);
    tokens_.host.push_back(tree.tokens()[i]);
    parents_.host.push_back(tree.parents()[i]);
    sequences_.host.push_back(num_sequences() - 1);
    positions_.host.push_back(length + tree.depths()[i]);
    nodes_.host.push_back(node);
    chains_only_ = chains_only_ && tree.parents()[i] == node - 1;
    max_path_ = std::max(max_path_, tree.depths()[i] + 1);
  }
  end_sequence();
}

void RowBuffer::fill_masks() {
  const int32_t most = *std::max_element(num_nodes_.host.begin(), num_nodes_.host.end());
  const int32_t words = mask_words_for(most);
  ancestors_.host.resize(static_cast<size_t>(num_rows()) * static_cast<size_t>(words));
  for (int32_t b = 0; b < num_sequences(); ++b) {
    const size_t first = static_cast<size_t>(first_row(b));
    fill_ancestors(parents_.host.data() + first, num_nodes(b), words, depths_.data(),
                   ancestors_.host.data() + first * static_cast<size_t>(words));
  }
}

RowTable RowBuffer::upload(Context& context) {
  RowTable table;
  table.num_rows = num_rows();
  table.num_sequences = num_sequences();
  for (Mirror<int32_t>* array : {&tokens_, &parents_, &sequences_, &positions_, &nodes_, &slots_,
                                 &lengths_, &num_nodes_, &first_rows_}) {
    array->upload(*backend_, context);
  }
  if (!chains_only_) {
    fill_masks();
    ancestors_.upload(*backend_, context);
    table.ancestors = ancestors_.device.data();
    table.mask_words = static_cast<int32_t>(ancestors_.host.size()) / num_rows();
  }
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
