// Defines: LrScheduler, LrSchedule.
#pragma once

#include <cstdint>

namespace brushwork {

// What happens to the learning rate after the warm-up.
enum class LrScheduler { kConstant, kLinear, kCosine };

// The learning rate of a run as a function of the optimizer steps done, so that a resumed run needs no state for it.
// In fp16 a skipped step does not count.
class LrSchedule {
 public:
  // `total_steps`: optimizer steps of the whole run, in which linear and cosine fall to 0. `warmup_steps`: the rate
  // rises from 0 to `learning_rate` in as many steps first.
  LrSchedule(LrScheduler scheduler, double learning_rate, int64_t warmup_steps, int64_t total_steps);

  // The learning rate of the next optimizer step.
  double at(int64_t steps_done) const;

 private:
  double factor(int64_t steps_done) const;

  LrScheduler scheduler_;
  double learning_rate_;
  int64_t warmup_steps_;
  int64_t total_steps_;
};

}  // namespace brushwork
