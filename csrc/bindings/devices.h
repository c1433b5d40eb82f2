// The devices that models can be made on: those whose backends are in this build.
#pragma once

#include <string>
#include <vector>

#include "core/backend.h"

namespace medusa::bindings {

struct DeviceOptions {
  std::string isa;             // of the CPU; empty: the default
  bool deterministic = false;  // of a GPU
};

struct Device {
  Backend (*make_backend)(const DeviceOptions& options);
  const KernelTable& (*kernels)();  // to ask what they support; no device need be present
};

/// Returns true, so that a device can register itself from a static initialiser.
bool register_device(const std::string& name, const Device& device);

/// std::invalid_argument for a name that is not registered.
Backend make_backend(const std::string& name, const DeviceOptions& options);

std::vector<std::string> device_names();

/// Weight formats of a device's kernels; std::invalid_argument as above.
std::vector<std::string> weight_formats(const std::string& device);

}  // namespace medusa::bindings
