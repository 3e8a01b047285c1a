#include "core/train/lr_schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace brushwork {

LrSchedule::LrSchedule(LrScheduler scheduler, double learning_rate, int64_t warmup_steps, int64_t total_steps)
    : scheduler_(scheduler), learning_rate_(learning_rate), warmup_steps_(warmup_steps), total_steps_(total_steps) {}

double LrSchedule::at(int64_t steps_done) const { return learning_rate_ * factor(steps_done); }

// huggingface/diffusers v0.42.1, src/diffusers/optimization.py: the lr_lambda of get_constant_schedule_with_warmup,
// get_linear_schedule_with_warmup and get_cosine_schedule_with_warmup.
double LrSchedule::factor(int64_t steps_done) const {
  if (steps_done < warmup_steps_) return static_cast<double>(steps_done) / static_cast<double>(warmup_steps_);
  if (scheduler_ == LrScheduler::kConstant) return 1.0;
  const auto length = static_cast<double>(std::max<int64_t>(1, total_steps_ - warmup_steps_));
  if (scheduler_ == LrScheduler::kLinear) {
    return std::max(0.0, static_cast<double>(total_steps_ - steps_done) / length);
  }
  const double progress = static_cast<double>(steps_done - warmup_steps_) / length;
  return std::max(0.0, 0.5 * (1.0 + std::cos(std::numbers::pi * progress)));
}

}  // namespace brushwork
