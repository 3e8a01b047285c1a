// A base model as diffusers lays it out on disk: model_index.json, unet/, vae/, text_encoder/, scheduler/.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "core/model/clip_text.h"
#include "core/model/unet.h"
#include "core/model/vae.h"
#include "core/torch.h"

namespace brushwork {

enum class PredictionType { kEpsilon, kVPrediction };

// What `scheduler/scheduler_config.json` says about the noise. Every scheduler class of diffusers is accepted: only
// these numbers matter for training.
struct SchedulerConfig {
  int64_t num_train_timesteps;
  double beta_start;
  double beta_end;
  std::string beta_schedule;  // "scaled_linear" or "linear"
  PredictionType prediction_type;
};

// The three frozen models of one directory and their noise schedule.
struct BaseModel {
  UNet unet;
  Vae vae;
  ClipText text_encoder;
  SchedulerConfig scheduler;
};

// Where and how a model is held.
struct BaseModelOptions {
  torch::Device device = torch::kCPU;
  // kFloat32, kHalf or kBFloat16. VAE and text encoder run once per image and caption and stay float32.
  torch::Dtype unet_dtype = torch::kFloat32;
};

// What a weight becomes while its model loads: gets its key with the component in front, e.g.
// "unet.conv_in.weight", and the file's tensor on the CPU; returns that, or another one of the same shape.
using ChangeWeight = std::function<torch::Tensor(const std::string& key, const torch::Tensor& weight)>;

// Opens the model in `directory`. Weights are `diffusion_pytorch_model.safetensors` (text encoder:
// `model.safetensors`), or their `.fp16.safetensors` variant. Throws MODEL_LOAD_FAILED naming the file and what is
// wrong with it: a missing file, an architecture that we do not implement, a missing, surplus or ill-shaped weight.
// `change` may be empty; what it throws goes through.
BaseModel load_base_model(const std::string& directory, const BaseModelOptions& options,
                          const ChangeWeight& change = {});

}  // namespace brushwork
