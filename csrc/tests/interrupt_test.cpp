// Forwards that are ended between two blocks: the session is as it was, and goes on exactly.
#include <gtest/gtest.h>

#include <memory>
#include <stdexcept>
#include <vector>

#include "engine/session.h"
#include "tests/kernels_under_test.h"
#include "tests/tiny_model.h"

namespace medusa {
namespace {

constexpr int32_t kCacheRows = 1100;
constexpr int32_t kLongPrompt = 1030;  // three chunks of a prefill

struct Interruption : std::runtime_error {
  Interruption() : std::runtime_error("interrupted") {}
};

/// A session whose next forwards end at the block `at`, counted over all chunks; -1: never.
class InterruptedSession {
 public:
  explicit InterruptedSession(const std::shared_ptr<Model>& model)
      : session_(model, 1, kCacheRows, 4, DType::kFloat32) {
    session_.set_interrupt([this](int32_t) {
      if (blocks_until_++ == at_) throw Interruption();
    });
  }

  Session& operator*() { return session_; }
  Session* operator->() { return &session_; }
  void interrupt_at(int32_t block) {
    at_ = block;
    blocks_until_ = 0;
  }
  int32_t num_blocks() const { return blocks_until_; }

 private:
  Session session_;
  int32_t at_ = -1;
  int32_t blocks_until_ = 0;
};

std::vector<int32_t> long_prompt(int32_t vocab_size) {
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < kLongPrompt; ++i) tokens.push_back(i * 31 % vocab_size);
  return tokens;
}

std::vector<int32_t> decode(Session& session, int32_t count) {
  std::vector<int32_t> tokens = {session.root(0)};
  while (static_cast<int32_t>(tokens.size()) < count) {
    session.begin_step();
    session.verify();
    session.accept();
    session.compact();
    tokens.push_back(session.root(0));
  }
  return tokens;
}

TEST(InterruptTest, APrefillLeavesTheSessionAsItWas) {
  for (const std::string& isa : isas_under_test()) {
    const std::shared_ptr<Model> model = testing::make_tiny_model({kFloat32Weights, isa});
    const std::vector<int32_t> prompt = long_prompt(model->config().vocab_size);
    InterruptedSession session(model);
    session->prefill(0, prompt.data(), 5, nullptr);
    const std::vector<int32_t> text = session->text(0);
    const int32_t root = session->root(0);
    const int32_t count = kLongPrompt - 5;
    session.interrupt_at(-1);
    session->prefill(0, prompt.data() + 5, count, nullptr);
    const int32_t num_blocks = session.num_blocks();
    const std::vector<int32_t> expected = decode(*session, 8);
    ASSERT_EQ(num_blocks, 3 * (1 + 2 * model->config().num_layers()));
    for (int32_t block = 0; block < num_blocks; ++block) {
      session->truncate(0, 5, root);
      session.interrupt_at(block);
      EXPECT_THROW(session->prefill(0, prompt.data() + 5, count, nullptr), Interruption);
      EXPECT_EQ(session->text(0), text);
      EXPECT_EQ(session->root(0), root);
      EXPECT_EQ(session.num_blocks(), block + 1);
      session.interrupt_at(-1);
      session->prefill(0, prompt.data() + 5, count, nullptr);
      EXPECT_EQ(decode(*session, 8), expected);
    }
  }
}

TEST(InterruptTest, AStepStandsBeforeItsVerify) {
  for (const std::string& isa : isas_under_test()) {
    const std::shared_ptr<Model> model = testing::make_tiny_model({kFloat32Weights, isa});
    const std::vector<int32_t> prompt = long_prompt(model->config().vocab_size);
    InterruptedSession session(model);
    session->prefill(0, prompt.data(), 40, nullptr);
    const int32_t root = session->root(0);
    const std::vector<int32_t> expected = decode(*session, 6);
    session->truncate(0, 40, root);
    for (int32_t block = 0; block < 1 + 2 * model->config().num_layers(); ++block) {
      session->truncate(0, 40, root);
      session->begin_step();
      session->add_node(0, 0, expected[1]);
      session.interrupt_at(block);
      EXPECT_THROW(session->verify(), Interruption);
      EXPECT_THROW(session->accept(), std::logic_error);
      EXPECT_EQ(session->length(0), 40);
      session.interrupt_at(-1);
      session->verify();
      session->accept();
      session->compact();
      EXPECT_EQ(session->emitted(0), std::vector<int32_t>(&expected[1], &expected[3]));
    }
  }
}

}  // namespace
}  // namespace medusa
