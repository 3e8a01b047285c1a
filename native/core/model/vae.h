// Between pixels and latents: diffusers' AutoencoderKL, frozen.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/torch.h"

namespace brushwork {

class JsonFile;
class Weights;

// What `vae/config.json` says, as far as we support it.
struct VaeConfig {
  int64_t in_channels;
  int64_t out_channels;
  int64_t latent_channels;
  std::vector<int64_t> block_out_channels;
  int64_t layers_per_block;
  int64_t norm_num_groups;
  double scaling_factor;
  bool use_quant_conv;
  bool use_post_quant_conv;
  bool mid_block_add_attention;

  // Throws MODEL_LOAD_FAILED naming the key for an architecture that we do not implement.
  static VaeConfig read(const JsonFile& file);
};

// The Gaussian over latents that the encoder returns.
struct LatentPosterior {
  torch::Tensor mean;  // (B, latent_channels, H / f, W / f)
  torch::Tensor std;   // exp(logvar / 2), logvar clamped to [-30, 20]
};

class Vae {
 public:
  // Takes every weight from `weights`, with their device and type. Throws MODEL_LOAD_FAILED for missing or ill-shaped
  // keys.
  Vae(const VaeConfig& config, const Weights& weights);
  ~Vae();
  Vae(Vae&&) noexcept;

  const VaeConfig& config() const;
  // Pixels per latent along a side, 8 for Stable Diffusion 1.5.
  int64_t scale_factor_px() const;

  // Pixels (B, 3, H, W) float32 in [-1, 1], sides multiples of `scale_factor_px()`, on the model's device. Float32
  // results, without autograd and not multiplied by the scaling factor.
  LatentPosterior encode(const torch::Tensor& pixels) const;

  // Pixels (B, 3, f H, f W) float32, about [-1, 1], of latents that were divided by the scaling factor. Without
  // autograd.
  torch::Tensor decode(const torch::Tensor& latents) const;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace brushwork
