// What the attention file of an instruction set puts into the kernel table.
#pragma once

namespace medusa::cpu::MEDUSA_ISA_NAMESPACE {

void fill_attention(KernelTable& table) {
  table.rope_append = rope_append;
  table.tree_attention = tree_attention;
  table.argmax = argmax;
  table.sample = sample;
  table.candidates = candidates;
  table.accept_typical = accept_typical;
}

}  // namespace medusa::cpu::MEDUSA_ISA_NAMESPACE
