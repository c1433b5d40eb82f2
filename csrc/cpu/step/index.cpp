#include "cpu/isa/fill.h"
#include "cpu/step/index_kernels.h"

namespace medusa::cpu {

void fill_index(KernelTable& table) {
  table.accept = accept;
  table.publish = publish;
  table.compact = compact;
  table.tree_rows = tree_rows;
}

}  // namespace medusa::cpu
