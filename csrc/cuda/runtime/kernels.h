// The launchers of the CUDA kernels. Each enqueues on the context's stream, reads no device memory
// on the host, allocates nothing and waits for nothing, so it can be captured into a graph: every
// pointer is a device pointer (a `PackedMatrix` itself is on the host), and sizes that change
// from step to step (lengths, node counts, positions) are read on the device. Pinned memory serves
// where the host's side of a step is read or written in place.
#pragma once

#include <cuda_runtime.h>

#include "core/params/attention.h"
#include "core/params/cache.h"
#include "core/params/heads.h"
#include "core/params/linear.h"
#include "core/params/rows.h"
#include "core/params/sampling.h"
#include "core/params/step.h"
#include "cuda/runtime/context.h"

namespace medusa::cuda {

cudaError_t embed(const CudaContext& context, const EmbedParams& params);
cudaError_t rms_norm(const CudaContext& context, const RmsNormParams& params);
cudaError_t quantize(const CudaContext& context, const QuantizeParams& params);
cudaError_t linear(const CudaContext& context, const LinearParams& params);
cudaError_t rope_append(const CudaContext& context, const RopeAppendParams& params);
cudaError_t tree_attention(const CudaContext& context, const TreeAttentionParams& params);

cudaError_t argmax(const CudaContext& context, const ArgmaxParams& params);
cudaError_t sample(const CudaContext& context, const SampleParams& params);
cudaError_t candidates(const CudaContext& context, const CandidatesParams& params);
cudaError_t accept(const CudaContext& context, const AcceptParams& params);
cudaError_t accept_typical(const CudaContext& context, const AcceptTypicalParams& params);
cudaError_t publish(const CudaContext& context, const PublishParams& params);
cudaError_t compact(const CudaContext& context, const CompactParams& params);

cudaError_t merge_drafts(const CudaContext& context, const MergeDraftsParams& params);
cudaError_t tree_rows(const CudaContext& context, const TreeRowsParams& params);
cudaError_t gather_hidden(const CudaContext& context, const GatherHiddenParams& params);
cudaError_t head_inputs(const CudaContext& context, const HeadInputsParams& params);

}  // namespace medusa::cuda
