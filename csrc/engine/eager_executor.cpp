#include "engine/executor.h"

namespace medusa {

void EagerExecutor::verify(Step& step, HeadDrafts& heads) {
  heads.resolve(step.trees());
  step.add_rows();
  step.forward(step.upload());
}

void EagerExecutor::accept(Step& step) { step.accept(); }

void EagerExecutor::finish(Step& step) {
  step.begin_results();
  step.finish();
}

}  // namespace medusa
