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

using MakeBackend = Backend (*)(const DeviceOptions& options);

/// Returns true, so that a device can register itself from a static initialiser.
bool register_device(const std::string& name, MakeBackend make);

/// std::invalid_argument for a name that is not registered.
Backend make_backend(const std::string& name, const DeviceOptions& options);

std::vector<std::string> device_names();

}  // namespace medusa::bindings
