// Defines: TextEncoderRate (a learning rate of its own for the text encoder's LoRA).
#pragma once

#include <vector>

#include "core/lora/lora_parameters.h"
#include "core/torch.h"

namespace brushwork {

// Both networks' parameters lie in one buffer that the optimizer updates with one learning rate. What AdamW and Lion
// change in a step is proportional to that rate, weight decay included, so another rate for some of the parameters is a
// share of their change. Never waits for the device.
class TextEncoderRate {
 public:
  // `factor`: the text encoder's rate, of the UNet's; above 0. `lora` must have a text encoder's part and outlive this.
  TextEncoderRate(const LoraParameters& lora, double factor);

  // To be called just before and just after an optimizer's step.
  void before_step();
  void after_step();

 private:
  double factor_;
  std::vector<torch::Tensor> ranges_;  // of the flat tensor, float32: the text encoder's A, its B
  std::vector<torch::Tensor> before_;  // what they held before the step
};

}  // namespace brushwork
