#include "ops/backend.h"

#include <c10/util/Exception.h>

#include <array>

namespace medusa::ops {
namespace {

using Backends = std::array<Backend, static_cast<size_t>(c10::COMPILE_TIME_MAX_DEVICE_TYPES)>;

// A function's static: backends register before main, in any order.
Backends& backends() {
  static Backends table;
  return table;
}

const Backend& backend_for(const char* op, const char* name, c10::Device device) {
  const Backend& backend = backends()[static_cast<size_t>(device.type())];
  TORCH_CHECK_VALUE(backend.kernels != nullptr, op, ": ", name,
                    " must be on a device this build has kernels for, got ", device);
  return backend;
}

}  // namespace

bool register_backend(c10::DeviceType type, const Backend& backend) {
  backends()[static_cast<size_t>(type)] = backend;
  return true;
}

Call::Call(const char* op, const char* name, c10::Device device)
    : backend_(backend_for(op, name, device)), guard_(device) {}

}  // namespace medusa::ops
