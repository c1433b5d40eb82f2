#include "engine/end_tokens.h"

#include <algorithm>
#include <utility>

namespace medusa {

EndTokens::EndTokens(const Backend& backend, Context& context, int32_t num_slots)
    : backend_(&backend), tokens_(static_cast<size_t>(num_slots)) {
  allocate(context);
}

void EndTokens::allocate(Context& context) {
  const auto num_slots = static_cast<int32_t>(tokens_.size());
  on_device_ = DeviceArray<int32_t>(*backend_, int64_t{num_slots} * width_);
  for (int32_t slot = 0; slot < num_slots; ++slot) copy_in(context, slot);
}

void EndTokens::copy_in(Context& context, int32_t slot) {
  const std::vector<int32_t>& tokens = tokens_[static_cast<size_t>(slot)];
  row_.assign(static_cast<size_t>(width_), -1);
  std::copy(tokens.begin(), tokens.end(), row_.begin());
  backend_->copy_in(context, on_device_.data() + int64_t{slot} * width_, row_.data(),
                    width_ * static_cast<int64_t>(sizeof(int32_t)));
}

bool EndTokens::set(Context& context, int32_t slot, std::vector<int32_t> tokens) {
  const auto needed = static_cast<int32_t>(tokens.size());
  tokens_[static_cast<size_t>(slot)] = std::move(tokens);
  if (needed <= width_) {
    copy_in(context, slot);
    return false;
  }
  while (width_ < needed) width_ *= 2;
  allocate(context);
  return true;
}

}  // namespace medusa
