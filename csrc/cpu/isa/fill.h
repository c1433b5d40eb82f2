// What each instruction set puts into its kernel table.
#pragma once

#include "core/kernel_table.h"

namespace medusa::cpu {

/// Kernels that move indices and bytes: accept, publish, compact. One build serves every
/// instruction set.
void fill_index(KernelTable& table);

/// The copies around Medusa heads; likewise one build.
void fill_heads(KernelTable& table);

namespace generic {
void fill_linear(KernelTable& table);
void fill_attention(KernelTable& table);
}  // namespace generic

namespace avx2 {
void fill_linear(KernelTable& table);
void fill_attention(KernelTable& table);
}  // namespace avx2

namespace avx2_vnni {
void fill_linear(KernelTable& table);
}  // namespace avx2_vnni

namespace avx512 {
void fill_linear(KernelTable& table);
void fill_attention(KernelTable& table);
}  // namespace avx512

namespace neon {
void fill_linear(KernelTable& table);
void fill_attention(KernelTable& table);
}  // namespace neon

namespace neon_dotprod {
void fill_linear(KernelTable& table);
}  // namespace neon_dotprod

}  // namespace medusa::cpu
