// Defines: DdimScheduler.
#pragma once

#include <cstdint>
#include <vector>

#include "core/sample/scheduler.h"

namespace brushwork {

// diffusers' DDIMScheduler as Stable Diffusion 1.5 configures it: "leading" spacing with steps_offset 1,
// set_alpha_to_one false, clip_sample false, eta 0. Remembers nothing between steps.
class DdimScheduler : public SampleScheduler {
 public:
  // Throws INVALID_REQUEST for a step count outside 1 … num_train_timesteps - 1.
  DdimScheduler(const SchedulerConfig& config, int64_t step_count);

  torch::Tensor step(const torch::Tensor& prediction, int64_t timestep, const torch::Tensor& sample) override;

 private:
  SchedulerConfig config_;
  int64_t step_ratio_;
  std::vector<float> alphas_cumprod_;
};

}  // namespace brushwork
