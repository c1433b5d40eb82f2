// The packed rows of a forward: filled on the host, handed to the kernels as a RowTable.
#pragma once

#include <cstdint>
#include <vector>

#include "core/backend.h"
#include "core/params/heads.h"
#include "core/params/rows.h"
#include "engine/step_tree.h"

namespace medusa {

class StepRows {
 public:
  StepRows() = default;
  StepRows(const Backend& backend, int32_t max_rows, int32_t max_sequences, int32_t max_nodes);

  void clear();
  void add_tree(int32_t slot, int32_t length, const StepTree& tree);
  /// A piece of a prompt: `count` tokens after the `length` rows of cache slot `slot`. Chains come
  /// after all trees; rows that another sequence of the table appends to the same slot count as
  /// there already.
  void add_chain(int32_t slot, int32_t length, const int32_t* tokens, int32_t count);
  /// A tree that `merge` will finish, in `num_rows` rows; all trees get as many.
  void add_drafts(int32_t slot, int32_t length, const StepTree& tree, int32_t num_rows);

  /// Copies to the device; the table is valid until the next `clear`.
  RowTable upload(Context& context);
  /// Of drafts: copies what does not depend on the heads. What changes from step to step is data.
  void upload_drafts(Context& context) const;
  /// Of drafts that were uploaded: makes their rows on the device. `heads` sets the candidates.
  RowTable merge(Context& context, MergeDraftsParams heads) const;

  bool is_chains_only() const { return chains_only_; }
  int32_t num_rows() const { return static_cast<int32_t>(tokens_.host.size()); }
  int32_t num_sequences() const { return static_cast<int32_t>(slots_.host.size()); }
  int32_t max_path() const { return max_path_; }  // of the trees
  int32_t first_row(int32_t sequence) const { return first_rows_.host[sequence]; }
  /// Without padding.
  int32_t num_nodes(int32_t sequence) const { return num_nodes_.host[sequence]; }

  // Device arrays of the last upload.
  const int32_t* tokens() const { return tokens_.device.data(); }
  const int32_t* parents() const { return parents_.device.data(); }
  const int32_t* first_rows() const { return first_rows_.device.data(); }
  const int32_t* slots() const { return slots_.device.data(); }
  const int32_t* roots() const { return roots_.device.data(); }  // of drafts
  const int32_t* num_nodes() const { return num_nodes_.device.data(); }
  int32_t* lengths() const { return lengths_.device.data(); }

 private:
  void begin_sequence(int32_t slot, int32_t length);
  void add_row(int32_t token, int32_t parent, int32_t position, int32_t node);
  void end_sequence(int32_t num_nodes);
  void fill_masks();
  RowTable table() const;

  const Backend* backend_ = nullptr;
  bool chains_only_ = true;
  int32_t max_path_ = 0;
  UploadArray<int32_t> tokens_, parents_, sequences_, positions_, nodes_;  // [R]
  UploadArray<int32_t> slots_, lengths_, roots_, num_nodes_;               // [B']
  UploadArray<int32_t> first_rows_;                                        // [B' + 1]
  UploadArray<uint64_t> ancestors_;                                        // [R, W]
  std::vector<int32_t> depths_;                                            // scratch of fill_masks
};

}  // namespace medusa
