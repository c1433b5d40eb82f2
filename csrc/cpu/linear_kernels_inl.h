// Everything `fill_linear` needs, in order.
#pragma once

// clang-format off
#include "cpu/packed_layout_inl.h"
#include "cpu/pack_inl.h"
#include "cpu/embed_inl.h"
#include "cpu/quantize_inl.h"
#include "cpu/rms_norm_inl.h"
#include "cpu/row_tiles_inl.h"
#include "cpu/linear_float_inl.h"
#include "cpu/linear_quantized_inl.h"
#include "cpu/linear_inl.h"
// clang-format on
