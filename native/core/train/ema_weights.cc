#include "core/train/ema_weights.h"

namespace brushwork {

EmaWeights::EmaWeights(const LoraParameters& lora, double decay)
    : lora_(lora.layout(), lora.config(), lora.values().device()), decay_(decay) {
  const torch::NoGradGuard no_grad;
  lora_.values().detach().copy_(lora.values());
}

// huggingface/diffusers v0.42.1, src/diffusers/training_utils.py, EMAModel.step and get_decay without use_ema_warmup:
// step n keeps min(decay, n / (n + 9)), the first one nothing.
void EmaWeights::update(const torch::Tensor& values, const torch::Tensor& step_count, const torch::Tensor& found_inf) {
  const torch::NoGradGuard no_grad;
  const auto earlier = (step_count - 1.0).clamp_min(0.0);
  const auto decay = ((1.0 + earlier) / (10.0 + earlier)).clamp_max(decay_) * (earlier > 0.0);
  auto weight = 1.0 - decay;
  if (found_inf.defined()) weight = weight * (1.0 - found_inf);
  lora_.values().detach().lerp_(values.detach(), weight.to(torch::kFloat32));
}

}  // namespace brushwork
