// A backend: its kernels, and how memory and bytes reach them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "core/kernel_table.h"

namespace medusa {

/// Memory that is freed with its last owner.
using Storage = std::shared_ptr<void>;

struct Backend {
  const KernelTable* kernels = nullptr;
  /// 64-byte aligned memory on the backend's device; throws std::bad_alloc (or a child of it).
  std::function<Storage(int64_t bytes)> allocate;
  std::function<std::unique_ptr<Context>()> make_context;
  /// Host to device and device to host, in the context's order. The host side of `copy_in` may be
  /// reused at once; that of `copy_out` is valid after `synchronize`.
  std::function<void(Context&, void* device, const void* host, int64_t bytes)> copy_in;
  std::function<void(Context&, void* host, const void* device, int64_t bytes)> copy_out;
  std::function<void(Context&)> synchronize;
  /// True where sampling one row at a time along the accepted walk beats sampling all rows.
  bool samples_along_walk = false;
};

/// A typed array in a backend's memory.
template <typename T>
class DeviceArray {
 public:
  DeviceArray() = default;
  DeviceArray(const Backend& backend, int64_t size)
      : storage_(backend.allocate(size * static_cast<int64_t>(sizeof(T)))), size_(size) {}

  T* data() const { return static_cast<T*>(storage_.get()); }
  int64_t size() const { return size_; }

  /// Makes room for `size` elements; what was there is lost when it grows.
  void reserve(const Backend& backend, int64_t size) {
    if (size > size_) *this = DeviceArray(backend, size);
  }

 private:
  Storage storage_;
  int64_t size_ = 0;
};

}  // namespace medusa
