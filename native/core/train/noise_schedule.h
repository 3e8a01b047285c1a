// Defines: NoiseSchedule, the DDPM forward process of training.
#pragma once

#include "core/model_io/base_model.h"
#include "core/torch.h"

namespace brushwork {

// B = batch, C = latent channels, H and W = latent height and width.
class NoiseSchedule {
 public:
  // Computes the tables on the CPU in float32 and moves them to `device`. Throws MODEL_LOAD_FAILED for a beta schedule
  // other than "scaled_linear" and "linear".
  NoiseSchedule(const SchedulerConfig& config, torch::Device device);

  const SchedulerConfig& config() const { return config_; }

  // float32 (num_train_timesteps) on the device.
  const torch::Tensor& alphas_cumprod() const { return alphas_cumprod_; }

  // sqrt(ᾱ_t) latents + sqrt(1 - ᾱ_t) noise. latents, noise: float32 (B, C, H, W); timesteps: int64 (B).
  torch::Tensor add_noise(const torch::Tensor& latents, const torch::Tensor& noise,
                          const torch::Tensor& timesteps) const;

  // What the UNet should have said: the noise, or for v-prediction sqrt(ᾱ_t) noise - sqrt(1 - ᾱ_t) latents.
  torch::Tensor target(const torch::Tensor& latents, const torch::Tensor& noise, const torch::Tensor& timesteps) const;

  // Min-SNR loss weights of all timesteps, float32 (num_train_timesteps) on the device: min(SNR, gamma) over SNR, or
  // over SNR + 1 for v-prediction.
  torch::Tensor min_snr_weights(double gamma) const;

 private:
  SchedulerConfig config_;
  torch::Tensor alphas_cumprod_;
  torch::Tensor sqrt_alphas_cumprod_;
  torch::Tensor sqrt_one_minus_alphas_cumprod_;
};

}  // namespace brushwork
