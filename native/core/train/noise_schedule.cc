#include "core/train/noise_schedule.h"

#include <cmath>

#include "core/errors.h"
#include "core/torch.h"

namespace brushwork {

namespace {

// huggingface/diffusers v0.42.1, src/diffusers/schedulers/scheduling_ddpm.py, DDPMScheduler.__init__. Everything stays
// in float32: a float64 table would differ in the last digits.
torch::Tensor make_betas(const SchedulerConfig& config) {
  const auto steps = config.num_train_timesteps;
  const auto float32 = torch::dtype(torch::kFloat32);
  if (config.beta_schedule == "scaled_linear") {
    return torch::linspace(std::sqrt(config.beta_start), std::sqrt(config.beta_end), steps, float32).pow(2);
  }
  if (config.beta_schedule == "linear") return torch::linspace(config.beta_start, config.beta_end, steps, float32);
  throw Error(ErrorCode::kModelLoadFailed, "The model's scheduler uses the beta schedule '" + config.beta_schedule +
                                               "'; only scaled_linear and linear are supported.");
}

// table (T), timesteps (B) -> (B, 1, 1, 1)
torch::Tensor at_timesteps(const torch::Tensor& table, const torch::Tensor& timesteps) {
  return table.index_select(0, timesteps).view({-1, 1, 1, 1});
}

}  // namespace

NoiseSchedule::NoiseSchedule(const SchedulerConfig& config, torch::Device device) : config_(config) {
  const auto alphas_cumprod = torch::cumprod(1.0 - make_betas(config), 0);
  alphas_cumprod_ = alphas_cumprod.to(device);
  sqrt_alphas_cumprod_ = alphas_cumprod.pow(0.5).to(device);
  sqrt_one_minus_alphas_cumprod_ = (1.0 - alphas_cumprod).pow(0.5).to(device);
}

// DDPMScheduler.add_noise of the same file; DDPM formula (4).
torch::Tensor NoiseSchedule::add_noise(const torch::Tensor& latents, const torch::Tensor& noise,
                                       const torch::Tensor& timesteps) const {
  return at_timesteps(sqrt_alphas_cumprod_, timesteps) * latents +
         at_timesteps(sqrt_one_minus_alphas_cumprod_, timesteps) * noise;
}

// DDPMScheduler.get_velocity of the same file; "Progressive Distillation", appendix D.
torch::Tensor NoiseSchedule::target(const torch::Tensor& latents, const torch::Tensor& noise,
                                    const torch::Tensor& timesteps) const {
  if (config_.prediction_type == PredictionType::kEpsilon) return noise;
  return at_timesteps(sqrt_alphas_cumprod_, timesteps) * noise -
         at_timesteps(sqrt_one_minus_alphas_cumprod_, timesteps) * latents;
}

// "Efficient Diffusion Training via Min-SNR Weighting Strategy", arXiv:2303.09556, as huggingface/diffusers v0.42.1
// has it: compute_snr of src/diffusers/training_utils.py, and examples/text_to_image/train_text_to_image_lora.py.
torch::Tensor NoiseSchedule::min_snr_weights(double gamma) const {
  const auto snr = (sqrt_alphas_cumprod_ / sqrt_one_minus_alphas_cumprod_).pow(2);
  const auto clipped = snr.clamp_max(gamma);
  return config_.prediction_type == PredictionType::kEpsilon ? clipped / snr : clipped / (snr + 1.0);
}

}  // namespace brushwork
