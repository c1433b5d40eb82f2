#include "cuda/attention/tree_attention.cuh"

namespace medusa::cuda {

template cudaError_t launch_tree_attention<__half, 128>(cudaStream_t, const AttentionGrid&,
                                                        const AttentionArgs&);

}  // namespace medusa::cuda
