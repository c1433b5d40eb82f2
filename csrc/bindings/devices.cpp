#include "bindings/devices.h"

#include <map>

#include "core/checks.h"
#include "cpu/runtime/backend.h"
#include "cpu/runtime/isa.h"

namespace medusa::bindings {
namespace {

using Devices = std::map<std::string, Device>;

Backend make_cpu(const DeviceOptions& options) { return cpu::make_backend(options.isa); }
const KernelTable& cpu_kernels() { return cpu::kernel_table(); }

// A function's static: devices register before main, in any order.
Devices& devices() {
  static Devices table = {{"cpu", {make_cpu, cpu_kernels}}};
  return table;
}

const Device& find_device(const std::string& name) {
  const auto found = devices().find(name);
  if (found != devices().end()) return found->second;
  std::string known;
  for (const std::string& device : device_names()) known += (known.empty() ? "" : ", ") + device;
  fail("device", "one that this build has a backend for (" + known + ")", '"' + name + '"');
}

}  // namespace

bool register_device(const std::string& name, const Device& device) {
  devices()[name] = device;
  return true;
}

Backend make_backend(const std::string& name, const DeviceOptions& options) {
  return find_device(name).make_backend(options);
}

std::vector<std::string> weight_formats(const std::string& device) {
  return supported_formats(find_device(device).kernels());
}

std::vector<std::string> device_names() {
  std::vector<std::string> names;
  for (const auto& device : devices()) names.push_back(device.first);
  return names;
}

}  // namespace medusa::bindings
