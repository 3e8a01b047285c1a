#include "core/sample/dpm_solver.h"

#include <cmath>

#include "core/sample/sample_options.h"
#include "core/train/noise_schedule.h"

namespace brushwork {

namespace {

constexpr int64_t kStepsOffset = 1;

}  // namespace

// huggingface/diffusers v0.42.1, src/diffusers/schedulers/scheduling_dpmsolver_multistep.py, set_timesteps ("leading")
// and _sigma_to_alpha_sigma_t.
DpmSolverScheduler::DpmSolverScheduler(const SchedulerConfig& config, int64_t step_count)
    : prediction_type_(config.prediction_type) {
  const int64_t training_steps = config.num_train_timesteps;
  require_drawable(step_count >= 1 && step_count < training_steps - kStepsOffset,
                   "step_count must be 1 to " + std::to_string(training_steps - kStepsOffset - 1) + ".");
  const auto to_noise = [](float sigma) -> Noise {
    const float alpha = 1 / std::sqrt(sigma * sigma + 1);
    return {alpha, sigma * alpha, std::log(alpha) - std::log(sigma * alpha)};
  };
  const auto table = NoiseSchedule(config, torch::kCPU).alphas_cumprod();
  const int64_t step_ratio = training_steps / (step_count + 1);
  for (int64_t i = step_count; i >= 1; --i) {
    const int64_t timestep = i * step_ratio + kStepsOffset;
    const float alpha_cumprod = table.data_ptr<float>()[timestep];
    timesteps_.push_back(timestep);
    noises_.push_back(to_noise(std::sqrt((1 - alpha_cumprod) / alpha_cumprod)));
  }
  noises_.push_back(to_noise(0));
}

// The same file: step, convert_model_output, dpm_solver_first_order_update and
// multistep_dpm_solver_second_order_update; algorithm 2 of arXiv:2211.01095.
torch::Tensor DpmSolverScheduler::step(const torch::Tensor& prediction, int64_t /*timestep*/,
                                       const torch::Tensor& sample) {
  const Noise& here = noises_.at(step_index_);
  const Noise& next = noises_.at(step_index_ + 1);
  // 1. The clean sample that the prediction implies.
  const bool is_epsilon = prediction_type_ == PredictionType::kEpsilon;
  const auto clean =
      is_epsilon ? (sample - here.sigma * prediction) / here.alpha : here.alpha * sample - here.sigma * prediction;
  // 2. Straight on, in the first order. With no noise left, h is infinite and the result the clean sample.
  const float h = next.lambda - here.lambda;
  const float weight = next.alpha * (std::exp(-h) - 1);
  auto result = (next.sigma / here.sigma) * sample - weight * clean;
  // 3. The second order, from how the clean sample moved; not at the last step, where it would be unstable.
  const bool is_last = step_index_ + 2 == noises_.size();
  if (previous_clean_.defined() && !is_last) {
    const float ratio = (here.lambda - noises_[step_index_ - 1].lambda) / h;
    result = result - 0.5f * weight * ((1 / ratio) * (clean - previous_clean_));
  }
  previous_clean_ = clean;
  ++step_index_;
  return result;
}

}  // namespace brushwork
