// Kernels that move indices and bytes; one build serves every instruction set.
#pragma once

#include "core/kernel_table.h"

namespace medusa::cpu {

void accept(Context& context, const AcceptParams& params);
void publish(Context& context, const PublishParams& params);
void compact(Context& context, const CompactParams& params);
void tree_rows(Context& context, const TreeRowsParams& params);

}  // namespace medusa::cpu
