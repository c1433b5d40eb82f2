#include "cuda/runtime/table.h"

#include "cuda/linear/pack.h"
#include "cuda/runtime/error.h"
#include "cuda/runtime/kernels.h"

namespace medusa::cuda {

const KernelTable& kernel_table() {
  static const KernelTable table = [] {
    KernelTable t = {};
    t.name = "cuda";
    t.supports = supports;
    t.packed_bytes = packed_bytes;
    t.pack = pack;
    t.activation_bytes = activation_bytes;
    t.activation_format = activation_format;
    t.embed = [](Context& context, const EmbedParams& params) {
      check(embed(cuda_context(context), params), "embed");
    };
    t.rms_norm = [](Context& context, const RmsNormParams& params) {
      check(rms_norm(cuda_context(context), params), "rms_norm");
    };
    t.quantize = [](Context& context, const QuantizeParams& params) {
      check(quantize(cuda_context(context), params), "quantize");
    };
    t.linear = [](Context& context, const LinearParams& params) {
      check(linear(cuda_context(context), params), "linear");
    };
    t.rope_append = [](Context& context, const RopeAppendParams& params) {
      check(rope_append(cuda_context(context), params), "rope_append");
    };
    t.tree_attention = [](Context& context, const TreeAttentionParams& params) {
      check(tree_attention(cuda_context(context), params), "tree_attention");
    };
    t.argmax = [](Context& context, const ArgmaxParams& params) {
      check(argmax(cuda_context(context), params), "argmax");
    };
    t.sample = [](Context& context, const SampleParams& params) {
      check(sample(cuda_context(context), params), "sample");
    };
    t.candidates = [](Context& context, const CandidatesParams& params) {
      check(candidates(cuda_context(context), params), "candidates");
    };
    t.accept = [](Context& context, const AcceptParams& params) {
      check(accept(cuda_context(context), params), "accept");
    };
    t.accept_typical = [](Context& context, const AcceptTypicalParams& params) {
      check(accept_typical(cuda_context(context), params), "accept_typical");
    };
    t.publish = [](Context& context, const PublishParams& params) {
      check(publish(cuda_context(context), params), "publish");
    };
    t.compact = [](Context& context, const CompactParams& params) {
      check(compact(cuda_context(context), params), "compact");
    };
    t.tree_rows = [](Context& context, const TreeRowsParams& params) {
      check(tree_rows(cuda_context(context), params), "tree_rows");
    };
    t.gather_hidden = [](Context& context, const GatherHiddenParams& params) {
      check(gather_hidden(cuda_context(context), params), "gather_hidden");
    };
    t.head_inputs = [](Context& context, const HeadInputsParams& params) {
      check(head_inputs(cuda_context(context), params), "head_inputs");
    };
    t.merge_drafts = [](Context& context, const MergeDraftsParams& params) {
      check(merge_drafts(cuda_context(context), params), "merge_drafts");
    };
    return t;
  }();
  return table;
}

}  // namespace medusa::cuda
