// Everything `fill_attention` needs, in order, and itself.
#pragma once

// clang-format off
#include "cpu/rows/quantize_inl.h"
#include "cpu/attention/cached_rows_inl.h"
#include "cpu/attention/attention_block_inl.h"
#include "cpu/attention/attention_tile_inl.h"
#include "cpu/attention/tree_attention_inl.h"
#include "cpu/attention/rope_append_inl.h"
#include "cpu/sampling/argmax_inl.h"
#include "cpu/sampling/row_stats_inl.h"
#include "cpu/sampling/sample_inl.h"
#include "cpu/sampling/candidates_inl.h"
#include "cpu/sampling/accept_typical_inl.h"
#include "cpu/isa/attention_table_inl.h"
// clang-format on
