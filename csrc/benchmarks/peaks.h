// Register-only peaks of each instruction set's tile arithmetic: operations done in `steps` steps.
#pragma once

#include <cstdint>

namespace medusa::cpu {

namespace avx2 {
double float_peak(int64_t steps);
double int8_peak(int64_t groups);
double int4_peak(int64_t groups);
}  // namespace avx2

namespace avx2_vnni {
double float_peak(int64_t steps);
double int8_peak(int64_t groups);
double int4_peak(int64_t groups);
}  // namespace avx2_vnni

namespace avx512 {
double float_peak(int64_t steps);
double int8_peak(int64_t groups);
double int4_peak(int64_t groups);
}  // namespace avx512

}  // namespace medusa::cpu
