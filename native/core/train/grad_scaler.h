// Defines: GradScaler, clip_grad_norm_. Both work on flat float32 buffers (P) and never wait for the device.
#pragma once

#include "core/torch.h"

namespace brushwork {

// Dynamic loss scaling for fp16, as torch.amp.GradScaler with its defaults, kept on the device.
class GradScaler {
 public:
  explicit GradScaler(torch::Device device);

  // Divides `grad` (P) by the scale in place and replaces non-finite values by 0. Returns 1 where any was non-finite,
  // else 0 (0-dim float32).
  torch::Tensor unscale_(torch::Tensor& grad);

  // Halves the scale after a non-finite step, doubles it after 2000 finite ones in a row.
  void update(const torch::Tensor& found_inf);

  // 0-dim float32, starts at 65536.
  const torch::Tensor& scale() const { return scale_; }
  // 0-dim int32: finite steps since the scale last changed.
  const torch::Tensor& growth_tracker() const { return growth_tracker_; }

 private:
  torch::Tensor scale_;
  torch::Tensor growth_tracker_;
};

// Scales `grad` (P) in place so that its 2-norm is at most `max_norm`. Returns the norm before that, 0-dim.
torch::Tensor clip_grad_norm_(torch::Tensor& grad, double max_norm);

}  // namespace brushwork
