// Errors that every backend reports in one wording.
#pragma once

#include <cstdint>
#include <new>
#include <string>

namespace medusa {

/// `where` begins the message: a device's name and ": ", or nothing.
class OutOfMemory : public std::bad_alloc {
 public:
  OutOfMemory(const std::string& where, int64_t bytes)
      : message_(where + "out of memory: needs " + std::to_string(bytes >> 20) + " MiB more") {}
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  std::string message_;
};

}  // namespace medusa
