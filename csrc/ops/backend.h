// What a device lends the operators; each backend registers itself.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/DeviceGuard.h>

#include "core/kernel_table.h"

namespace medusa::ops {

struct Backend {
  const KernelTable& (*kernels)() = nullptr;
  /// Where kernels called from this thread run: its threads, or the device's current stream.
  Context& (*context)(c10::Device device) = nullptr;
};

/// Returns true, so that a backend can register itself from a static initialiser.
bool register_backend(c10::DeviceType type, const Backend& backend);

/// One operator call on the device of its argument `name`, which is the current device meanwhile.
class Call {
 public:
  /// ValueError where this build has no kernels for the device.
  Call(const char* op, const char* name, c10::Device device);

  const KernelTable& kernels() const { return backend_.kernels(); }
  Context& context() const { return backend_.context(guard_.current_device()); }

 private:
  const Backend& backend_;
  c10::DeviceGuard guard_;
};

}  // namespace medusa::ops
