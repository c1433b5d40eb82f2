// The border between the decoder, written once, and the kernels of a backend.
#pragma once

#include <cstdint>

#include "core/activations.h"
#include "core/packed_matrix.h"
#include "core/params/attention.h"
#include "core/params/cache.h"
#include "core/params/heads.h"
#include "core/params/linear.h"
#include "core/params/rows.h"
#include "core/params/sampling.h"
#include "core/params/step.h"
#include "core/weight_format.h"

namespace medusa {

struct KernelTimes;

/// Where kernels run: a CPU thread pool, or a CUDA stream. Derived by each backend; the decoder
/// only hands it through.
class Context {
 public:
  virtual ~Context() = default;
  /// Threads that the kernels may use from the next one on; a device has its own.
  virtual void set_num_threads(int /*num_threads*/) {}
  /// Called by a thread that is about to use it: makes its device the thread's current one.
  virtual void activate() {}

  /// Where the kernels of a model book their time (core/profiled_table.h); null: nowhere.
  KernelTimes* times = nullptr;
};

/// The kernels of one backend and instruction set. Every entry is set but those of the last
/// section. An entry that fails on the device throws std::runtime_error; CPU kernels do not fail.
struct KernelTable {
  const char* name;  // an instruction set of cpu/runtime/isa.h, or "cuda"

  // Weights and activations.
  /// Whether matrices of `format` can be packed and multiplied; what follows is for these alone.
  bool (*supports)(const WeightFormat& format);
  int64_t (*packed_bytes)(const WeightFormat& format, int32_t num_outputs, int32_t num_inputs);
  void (*pack)(const PackParams&);
  int64_t (*activation_bytes)(const ActivationFormat& format, int32_t num_rows, int32_t width);
  /// What the product with weights of `format` reads.
  ActivationFormat (*activation_format)(const WeightFormat& format);

  // The decoder's forward.
  void (*embed)(Context&, const EmbedParams&);
  void (*rms_norm)(Context&, const RmsNormParams&);
  void (*quantize)(Context&, const QuantizeParams&);
  void (*linear)(Context&, const LinearParams&);
  void (*rope_append)(Context&, const RopeAppendParams&);
  void (*tree_attention)(Context&, const TreeAttentionParams&);

  // The step around it.
  void (*argmax)(Context&, const ArgmaxParams&);
  void (*sample)(Context&, const SampleParams&);
  void (*candidates)(Context&, const CandidatesParams&);
  void (*accept)(Context&, const AcceptParams&);
  void (*accept_typical)(Context&, const AcceptTypicalParams&);
  void (*publish)(Context&, const PublishParams&);
  void (*compact)(Context&, const CompactParams&);

  // The operators' [B, N] trees as packed rows.
  void (*tree_rows)(Context&, const TreeRowsParams&);
  void (*gather_hidden)(Context&, const GatherHiddenParams&);
  void (*head_inputs)(Context&, const HeadInputsParams&);

  // The trees of a recorded step, whose heads run on the device: for backends that record.
  void (*merge_drafts)(Context&, const MergeDraftsParams&);
};

}  // namespace medusa
