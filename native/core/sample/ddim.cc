#include "core/sample/ddim.h"

#include <cmath>

#include "core/sample/sample_options.h"
#include "core/train/noise_schedule.h"

namespace brushwork {

namespace {

constexpr int64_t kStepsOffset = 1;

}  // namespace

// huggingface/diffusers v0.42.1, src/diffusers/schedulers/scheduling_ddim.py, set_timesteps ("leading").
DdimScheduler::DdimScheduler(const SchedulerConfig& config, int64_t step_count) : config_(config) {
  require_drawable(step_count >= 1 && step_count < config.num_train_timesteps,
                   "step_count must be 1 to " + std::to_string(config.num_train_timesteps - 1) + ".");
  step_ratio_ = config.num_train_timesteps / step_count;
  for (int64_t i = step_count - 1; i >= 0; --i) timesteps_.push_back(i * step_ratio_ + kStepsOffset);
  const auto table = NoiseSchedule(config, torch::kCPU).alphas_cumprod();
  alphas_cumprod_.assign(table.data_ptr<float>(), table.data_ptr<float>() + table.numel());
}

// The same file, step with eta 0; formula (12) of arXiv:2010.02502.
torch::Tensor DdimScheduler::step(const torch::Tensor& prediction, int64_t timestep, const torch::Tensor& sample) {
  // 1. ᾱ here and one step further; behind the last step stands ᾱ_0, not 1.
  const int64_t previous = timestep - step_ratio_;
  const float alpha = alphas_cumprod_.at(static_cast<size_t>(timestep));
  const float alpha_previous = alphas_cumprod_.at(previous >= 0 ? static_cast<size_t>(previous) : 0);
  const float sqrt_alpha = std::sqrt(alpha), sqrt_beta = std::sqrt(1 - alpha);
  // 2. The clean sample and the noise that the prediction implies.
  const bool is_epsilon = config_.prediction_type == PredictionType::kEpsilon;
  const auto original =
      is_epsilon ? (sample - sqrt_beta * prediction) / sqrt_alpha : sqrt_alpha * sample - sqrt_beta * prediction;
  const auto epsilon = is_epsilon ? prediction : sqrt_alpha * prediction + sqrt_beta * sample;
  // 3. The same pair at the smaller noise.
  return std::sqrt(alpha_previous) * original + std::sqrt(1 - alpha_previous) * epsilon;
}

}  // namespace brushwork
