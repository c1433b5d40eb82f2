// The tokens at which a step of a sequence ends, where the kernels read them.
#pragma once

#include <cstdint>
#include <vector>

#include "core/backend.h"

namespace medusa {

class EndTokens {
 public:
  EndTokens() = default;
  EndTokens(const Backend& backend, Context& context, int32_t num_slots);

  /// Of one cache slot, from the next step on. Returns whether the table has moved, which it does
  /// where a sequence gets more tokens than any had before (and than a few).
  bool set(Context& context, int32_t slot, std::vector<int32_t> tokens);

  int32_t width() const { return width_; }                   // E
  const int32_t* data() const { return on_device_.data(); }  // [B, E], -1 after a slot's own

 private:
  void allocate(Context& context);
  void copy_in(Context& context, int32_t slot);

  const Backend* backend_ = nullptr;
  int32_t width_ = 8;
  std::vector<std::vector<int32_t>> tokens_;  // [B]
  std::vector<int32_t> row_;                  // [E] scratch
  DeviceArray<int32_t> on_device_;
};

}  // namespace medusa
