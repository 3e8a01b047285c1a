// Defines: EmaWeights.
#pragma once

#include "core/lora/lora_parameters.h"
#include "core/torch.h"

namespace brushwork {

// An exponential moving average of a LoRA over the optimizer steps, on the LoRA's device.
class EmaWeights {
 public:
  // `lora`: what it starts from, e.g. the initial LoRA. `decay`: 0 to below 1, the share of the old average that a step
  // keeps; less in the first steps, which know little.
  EmaWeights(const LoraParameters& lora, double decay);

  // Takes up `values` (P) after an optimizer step. `step_count`: 0-dim float64, that step included. `found_inf` (0-dim
  // float32) 1: the step was skipped, nothing changes; undefined: it was not. Never waits for the device.
  void update(const torch::Tensor& values, const torch::Tensor& step_count, const torch::Tensor& found_inf);

  // The average, laid out like the LoRA that it is of.
  const LoraParameters& lora() const { return lora_; }

 private:
  LoraParameters lora_;
  double decay_;
};

}  // namespace brushwork
