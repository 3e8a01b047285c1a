// The LoRA as one micro-step sees it: parameters cast once to the compute type, and that step's dropout.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/lora/lora_parameters.h"

namespace brushwork {

// Make one per forward pass, from parameters of that model's targets; where the text encoder is trained as well, one
// for its pass and the UNet's after it. Gradients of what was computed with it flow back to `parameters.gradients()` as
// float32.
class LoraStep {
 public:
  // `compute_dtype`: the UNet's (`UNet::dtype()`). `dropout_generator`: on the parameters' device, seeded for this
  // micro-step; needed only where the configuration's dropout is above 0, absent means no dropout (sampling).
  LoraStep(const LoraParameters& parameters, torch::Dtype compute_dtype,
           std::optional<torch::Generator> dropout_generator = std::nullopt);

  // The stacked A (n, rank, in) of one group of the layout, in the compute type, with autograd.
  const torch::Tensor& a_group(int64_t group) const { return a_groups_[static_cast<size_t>(group)]; }
  // The stacked B (n, out, rank) of one group, times alpha / rank, and divided by the probability of keeping an input
  // where there is dropout: x W^T + b + dropped(x) A^T B^T is the layer's result.
  const torch::Tensor& b_group(int64_t group) const { return b_groups_[static_cast<size_t>(group)]; }

  // Where the text encoder's groups begin; none: it has no LoRA.
  const std::optional<LoraGroups>& text_encoder_groups() const { return text_encoder_groups_; }

  // Whether inputs are dropped in this step; if not, `dropped` must not be called.
  bool has_dropout() const { return dropout_generator_.has_value(); }
  // `count` independent dropouts of `x`, stacked in front: (count, *x.shape). Kept values stay as they are, `b_group`
  // makes up for it. One draw for all of them; draws follow the order of the calls.
  torch::Tensor dropped(const torch::Tensor& x, int64_t count);

  // The same parameters, and a generator of its own that will draw what this one's would from here on.
  LoraStep clone() const;

 private:
  double keep_probability_ = 1.0;
  std::optional<torch::Generator> dropout_generator_;
  std::vector<torch::Tensor> a_groups_;
  std::vector<torch::Tensor> b_groups_;
  std::optional<LoraGroups> text_encoder_groups_;
};

}  // namespace brushwork
