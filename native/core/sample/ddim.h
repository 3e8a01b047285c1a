// Defines: DdimScheduler, SampleOptions, Picture, sample_picture.
#pragma once

#include <cstdint>
#include <vector>

#include "core/lora/lora_parameters.h"
#include "core/model_io/base_model.h"
#include "core/torch.h"
#include "core/train/training_data.h"

namespace brushwork {

// diffusers' DDIMScheduler as Stable Diffusion 1.5 configures it: "leading" spacing with steps_offset 1,
// set_alpha_to_one false, clip_sample false, eta 0.
class DdimScheduler {
 public:
  // Throws INVALID_REQUEST for a step count outside 1 … num_train_timesteps - 1.
  DdimScheduler(const SchedulerConfig& config, int64_t step_count);

  // Training timesteps to visit, from noisy to clean.
  const std::vector<int64_t>& timesteps() const { return timesteps_; }

  // The sample one step cleaner than `sample` (B, C, H, W), from the UNet's `prediction` for it at `timestep`.
  torch::Tensor step(const torch::Tensor& prediction, int64_t timestep, const torch::Tensor& sample) const;

 private:
  SchedulerConfig config_;
  int64_t step_ratio_;
  std::vector<int64_t> timesteps_;
  std::vector<float> alphas_cumprod_;
};

struct SampleOptions {
  std::vector<int32_t> token_ids;
  std::vector<int32_t> negative_token_ids;
  int64_t step_count;     // e.g. 30
  double guidance_scale;  // e.g. 7.5; 1 or less: no guidance, and the negative prompt is not used
  int64_t seed;           // of the initial noise
  int64_t width_px;
  int64_t height_px;
};

// RGB, 8 bit, (height_px, width_px, 3).
struct Picture {
  int64_t width_px;
  int64_t height_px;
  std::vector<uint8_t> pixels;
};

// Draws a picture with `model` and, where not null, `lora`. Throws INVALID_REQUEST for an option out of its range,
// INTERNAL when `should_stop` ended the work.
Picture sample_picture(const BaseModel& model, const LoraParameters* lora, const SampleOptions& options,
                       const ShouldStop& should_stop = {});

}  // namespace brushwork
