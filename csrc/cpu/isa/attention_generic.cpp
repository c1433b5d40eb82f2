// The attention and step kernels for generic.
// The order of these headers matters.
// clang-format off
#include "cpu/isa/headers.h"
#include "cpu/isa/generic.h"
#include "cpu/isa/attention_vec_generic.h"
#include "cpu/quantize_inl.h"
#include "cpu/attention_block_inl.h"
#include "cpu/attention_tile_inl.h"
#include "cpu/tree_attention_inl.h"
#include "cpu/rope_append_inl.h"
#include "cpu/argmax_inl.h"
#include "cpu/row_stats_inl.h"
#include "cpu/sample_inl.h"
#include "cpu/candidates_inl.h"
#include "cpu/accept_typical_inl.h"
#include "cpu/isa/attention_table_inl.h"
// clang-format on
