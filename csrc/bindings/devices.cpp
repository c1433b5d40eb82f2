#include "bindings/devices.h"

#include <map>
#include <stdexcept>

#include "cpu/runtime/backend.h"

namespace medusa::bindings {
namespace {

using Devices = std::map<std::string, MakeBackend>;

Backend make_cpu(const DeviceOptions& options) { return cpu::make_backend(options.isa); }

// A function's static: devices register before main, in any order.
Devices& devices() {
  static Devices table = {{"cpu", make_cpu}};
  return table;
}

}  // namespace

bool register_device(const std::string& name, MakeBackend make) {
  devices()[name] = make;
  return true;
}

Backend make_backend(const std::string& name, const DeviceOptions& options) {
  const auto found = devices().find(name);
  if (found == devices().end()) {
    std::string known;
    for (const std::string& device : device_names()) known += (known.empty() ? "" : ", ") + device;
    throw std::invalid_argument("device: needs one that this build has a backend for (" + known +
                                "), got \"" + name + "\"");
  }
  return found->second(options);
}

std::vector<std::string> device_names() {
  std::vector<std::string> names;
  for (const auto& device : devices()) names.push_back(device.first);
  return names;
}

}  // namespace medusa::bindings
