// Begins the generic build of kernel bodies: no target region, a Vec of plain floats.
#pragma once

#define MEDUSA_ISA_NAMESPACE generic

#include "cpu/isa/vec_generic.h"
