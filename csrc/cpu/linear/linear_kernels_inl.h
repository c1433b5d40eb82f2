// Everything `fill_linear` needs, in order.
#pragma once

// clang-format off
#include "cpu/linear/packed_layout_inl.h"
#include "cpu/linear/pack_inl.h"
#include "cpu/rows/embed_inl.h"
#include "cpu/rows/quantize_inl.h"
#include "cpu/rows/rms_norm_inl.h"
#include "cpu/linear/row_tiles_inl.h"
#include "cpu/linear/linear_float_inl.h"
#include "cpu/linear/linear_quantized_inl.h"
#include "cpu/linear/linear_inl.h"
// clang-format on
