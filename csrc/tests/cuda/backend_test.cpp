// What the backend says when a device, its memory or a step fails.
#include "core/backend.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda/runtime/table.h"
#include "tests/cuda/schedules.h"

namespace medusa::cuda::testing {
namespace {

/// The message of what `call` throws.
template <typename Error, typename F>
std::string message_of(F&& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Backend, NamesADeviceThatIsNotThere) {
  BackendOptions options;
  options.device = 7;
  const std::string message = message_of<std::runtime_error>([&] { make_backend(options); });
  EXPECT_EQ(0u, message.find("cuda: no device is present that can be used: ")) << message;
}

#ifdef SIMT_EMU
TEST(Backend, NamesADeviceThatIsTooOld) {
  simt::options().compute_capability = 75;
  const std::string message = message_of<std::runtime_error>([] { make_backend(); });
  simt::options().compute_capability = 90;
  EXPECT_EQ("cuda: needs a device of compute capability 8.0 or later, got 7.5", message);
}
#endif

TEST(Backend, SaysHowMuchMemoryIsMissing) {
  if (is_sanitized()) return;  // AddressSanitizer ends the process instead
  const Backend backend = make_backend();
  const auto what = [&](int64_t mebibytes) {
    return message_of<std::bad_alloc>([&] { backend.allocate(mebibytes << 20); });
  };
  EXPECT_EQ("cuda: out of memory: needs 1099511627776 MiB more", what(int64_t{1} << 40));
  EXPECT_EQ("no error", what(1)) << "it goes on after that";
}

TEST(Backend, WaitingForWhatCannotComeIsAnError) {
  const Backend backend = make_backend();
  const std::unique_ptr<Context> context = backend.make_context();
  HostArray<int32_t> number(backend, 1);
  number[0] = 3;
  backend.wait_for(*context, number.data(), 3);
  EXPECT_THROW(backend.wait_for(*context, number.data(), 4), std::runtime_error);
}

TEST(Backend, WhatACaptureForbidsIsAnError) {
  const Backend backend = make_backend();
  const std::unique_ptr<Context> context = backend.make_context();
  EXPECT_THROW(backend.capture(*context, [&] { backend.allocate(64); }), std::exception);
  EXPECT_THROW(backend.capture(*context, [&] { backend.synchronize(*context); }),
               std::runtime_error);
  const Storage memory = backend.allocate(64);
  const std::vector<char> pageable(64);
  EXPECT_THROW(backend.capture(
                   *context, [&] { backend.copy_in(*context, memory.get(), pageable.data(), 64); }),
               std::runtime_error);
  // The context goes on as before.
  backend.copy_in(*context, memory.get(), pageable.data(), 64);
  backend.synchronize(*context);
}

}  // namespace
}  // namespace medusa::cuda::testing
