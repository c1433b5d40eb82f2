// Everything a kernel body may use from outside, included before a target region begins: a header
// first seen inside one would be compiled for that instruction set and could be linked into the
// program at large.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <type_traits>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "core/activations.h"
#include "core/dtype.h"
#include "core/gguf_blocks.h"
#include "core/kernel_table.h"
#include "core/noise.h"
#include "core/packed_matrix.h"
#include "core/params/attention.h"
#include "core/params/cache.h"
#include "core/params/heads.h"
#include "core/params/linear.h"
#include "core/params/rows.h"
#include "core/params/sampling.h"
#include "core/params/step.h"
#include "core/weight_format.h"
#include "cpu/isa/fill.h"
#include "cpu/linear/activations.h"
#include "cpu/runtime/context.h"
