// Checks of what callers hand in: one wording for all.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace medusa {

[[noreturn]] inline void fail(const std::string& argument, const std::string& need,
                              const std::string& got) {
  throw std::invalid_argument(argument + ": needs " + need + ", got " + got);
}

[[noreturn]] inline void fail(const std::string& argument, const std::string& need, int64_t got) {
  fail(argument, need, std::to_string(got));
}

/// `value` if it is in least … most.
inline int32_t checked(const char* argument, int32_t value, int32_t least, int32_t most) {
  if (value < least || value > most) {
    fail(argument, std::to_string(least) + " to " + std::to_string(most), value);
  }
  return value;
}

}  // namespace medusa
