// A backend: its kernels, and how memory and bytes reach them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/kernel_table.h"

namespace medusa {

/// Memory that is freed with its last owner.
using Storage = std::shared_ptr<void>;

/// Work that was recorded once, to be launched again and again as a whole.
class Graph {
 public:
  virtual ~Graph() = default;
  virtual void launch(Context& context) = 0;
};

struct Backend {
  const KernelTable* kernels = nullptr;
  /// 64-byte aligned memory on the backend's device; throws std::bad_alloc (or a child of it).
  std::function<Storage(int64_t bytes)> allocate;
  /// Host memory that kernels can use in place and copies need not wait for; as `allocate`
  /// otherwise.
  std::function<Storage(int64_t bytes)> allocate_host;
  std::function<std::unique_ptr<Context>()> make_context;
  /// Host to device and device to host, in the context's order. The host side of `copy_in` may be
  /// reused at once, but memory of `allocate_host` only after `synchronize`; that of `copy_out` is
  /// valid after `synchronize`.
  std::function<void(Context&, void* device, const void* host, int64_t bytes)> copy_in;
  std::function<void(Context&, void* host, const void* device, int64_t bytes)> copy_out;
  std::function<void(Context&)> synchronize;
  /// Waits until what was enqueued has stored `value` in `number`, memory of `allocate_host`: a
  /// step's results arrive without a copy. Throws std::runtime_error where that cannot come.
  std::function<void(Context&, const int32_t* number, int32_t value)> wait_for;
  /// Records what `work` enqueues, without running it; null where nothing is gained by that. Host
  /// memory that `work` uses or copies from or to must come from `allocate_host`. A launch reads
  /// what is there by then; sizes are those of the recording.
  std::function<std::unique_ptr<Graph>(Context&, const std::function<void()>& work)> capture;
  /// True where sampling one row at a time along the accepted walk beats sampling all rows.
  bool samples_along_walk = false;
};

/// Names of the weight formats that these kernels take.
inline std::vector<std::string> supported_formats(const KernelTable& kernels) {
  std::vector<std::string> names;
  for (const NamedWeightFormat& known : kWeightFormats) {
    if (kernels.supports(known.format)) names.emplace_back(known.name);
  }
  return names;
}

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

/// A growing array in host memory, of a fixed capacity, so that its address never changes.
template <typename T>
class HostArray {
 public:
  HostArray() = default;
  HostArray(const Backend& backend, int64_t capacity)
      : storage_(backend.allocate_host(capacity * static_cast<int64_t>(sizeof(T)))) {}

  T* data() const { return static_cast<T*>(storage_.get()); }
  int64_t size() const { return size_; }
  T& operator[](int64_t i) const { return data()[i]; }
  T& back() const { return data()[size_ - 1]; }
  void clear() { size_ = 0; }
  void resize(int64_t size) { size_ = size; }
  void push_back(T value) { data()[size_++] = value; }

 private:
  Storage storage_;
  int64_t size_ = 0;
};

/// An array that is filled on the host and copied to the backend's memory.
template <typename T>
struct UploadArray {
  HostArray<T> host;
  DeviceArray<T> device;

  UploadArray() = default;
  UploadArray(const Backend& backend, int64_t capacity)
      : host(backend, capacity), device(backend, capacity) {}
  void upload(const Backend& backend, Context& context) const {
    backend.copy_in(context, device.data(), host.data(),
                    host.size() * static_cast<int64_t>(sizeof(T)));
  }
};

}  // namespace medusa
