// Stable Diffusion's denoiser, diffusers' UNet2DConditionModel, frozen, with a LoRA on its attention projections.
//
// Letters in shape comments: B batch, H and W latent height and width, S text tokens, D text width, C channels.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/lora/lora_parameters.h"
#include "core/lora/lora_step.h"
#include "core/torch.h"

namespace brushwork {

class JsonFile;
class Weights;

// What `unet/config.json` says, as far as we support it.
struct UNetConfig {
  int64_t in_channels;
  int64_t out_channels;
  int64_t sample_size;  // latent side that the model was trained for; 0 where the file does not say
  std::vector<int64_t> block_out_channels;
  std::vector<std::string> down_block_types;
  std::vector<std::string> up_block_types;
  int64_t layers_per_block;
  std::vector<int64_t> transformer_layers_per_block;  // transformer blocks per attention, one number per level
  // Heads per attention, one number per level: diffusers' `attention_head_dim` has always meant the number of heads.
  std::vector<int64_t> head_counts;
  int64_t cross_attention_dim;
  int64_t norm_num_groups;
  double norm_eps;
  bool use_linear_projection;
  bool flip_sin_to_cos;
  int64_t freq_shift;

  // Throws MODEL_LOAD_FAILED naming the key for an architecture that we do not implement.
  static UNetConfig read(const JsonFile& file);
};

// Text as the UNet uses it: the encoder's states, and what the frozen key and value weights of every cross attention
// make of them, computed once per caption unless the text encoder is trained. Rows are captions, or the samples of a
// batch.
struct TextKeysValues {
  torch::Tensor states;       // (B, S, D)
  torch::Tensor keys_values;  // (B, S, sum over cross attentions of 2 C)

  // The rows that `indices` (int64, on the same device) names, in its order.
  TextKeysValues select(const torch::Tensor& indices) const;
};

class UNet {
 public:
  // Takes every weight from `weights`, with their device and type. Throws MODEL_LOAD_FAILED for missing or ill-shaped
  // keys.
  UNet(const UNetConfig& config, const Weights& weights);
  ~UNet();
  UNet(UNet&&) noexcept;

  const UNetConfig& config() const;
  torch::Device device() const;
  torch::Dtype dtype() const;
  // Parameters of the frozen model.
  int64_t parameter_count() const;
  // The modules that get a LoRA: to_q, to_k, to_v and to_out.0 of every attention.
  const LoraLayout& lora_layout() const;

  // Multiplies text states (B, S, D), any float dtype, with all frozen key and value weights; with autograd where the
  // states have it.
  TextKeysValues prepare_text(const torch::Tensor& states) const;

  // The model's prediction (B, out_channels, H, W) in float32. `sample` (B, in_channels, H, W) float32, `timesteps` (B)
  // int64, all on `device()`; H and W must be multiples of 2^(levels - 1). `lora` null: the base model alone. With a
  // LoRA the result carries autograd to the LoRA parameters. Never waits for the device.
  // `gradient_checkpointing`: the backward pass computes each block again instead of keeping its intermediate results;
  // the model must outlive the result's autograd graph then. Without a LoRA it changes nothing.
  torch::Tensor forward(const torch::Tensor& sample, const torch::Tensor& timesteps, const TextKeysValues& text,
                        LoraStep* lora = nullptr, bool gradient_checkpointing = false) const;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace brushwork
