// How the phases of a step reach the device: one by one, or as one recorded piece of work.
#pragma once

#include <cstdint>
#include <memory>

#include "engine/head_drafts.h"
#include "engine/step.h"
#include "engine/step_graphs.h"

namespace medusa {

class Executor {
 public:
  virtual ~Executor() = default;
  /// Whether the heads can run within the step: their nodes' tokens are open until then.
  virtual bool runs_heads() const = 0;
  /// The step has been set out; its rows have not.
  virtual void verify(Step& step, HeadDrafts& heads) = 0;
  virtual void accept(Step& step) = 0;
  virtual void finish(Step& step) = 0;
};

/// Every phase when it is called: on the CPU, when profiling, and for steps with prompts.
class EagerExecutor : public Executor {
 public:
  bool runs_heads() const override { return false; }
  void verify(Step& step, HeadDrafts& heads) override;
  void accept(Step& step) override;
  void finish(Step& step) override;
};

/// The whole step when it is verified, recorded once for each of its shapes. What changes from step
/// to step is data, on the host in memory that the device reads.
class RecordedExecutor : public Executor {
 public:
  /// Whether steps of sessions with such trees can be recorded.
  static bool supports(const Model& model, int32_t max_nodes);

  bool runs_heads() const override { return true; }
  void verify(Step& step, HeadDrafts& heads) override;
  void accept(Step&) override {}
  void finish(Step&) override {}

  size_t num_recorded() const { return graphs_.num_recorded(); }

 private:
  void forget_moved(const Step& step);

  StepGraphs graphs_;
  int64_t version_ = 0;  // of the memory that the graphs use
  int64_t logits_version_ = 0;
};

}  // namespace medusa
