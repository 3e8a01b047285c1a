// Defines: AdamWConfig, AdamW, GradScaler, clip_grad_norm_.
//
// All of them work on flat float32 buffers (P) that hold every trained parameter, allocate nothing of that size in a
// step and never wait for the device, so a step can be captured as a CUDA graph.
#pragma once

#include <cstdint>

#include "core/torch.h"

namespace brushwork {

struct AdamWConfig {
  double learning_rate;  // e.g. 1e-4
  double weight_decay;   // e.g. 0.01, decoupled
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
};

// AdamW over one flat parameter buffer.
class AdamW {
 public:
  // `params`: float32 (P), kept by reference and updated in place; moments start at zero.
  AdamW(const AdamWConfig& config, torch::Tensor params);

  // One update from `grad` (P), which must be finite. `found_inf` (0-dim float32, 1 or 0) makes the step do nothing at
  // all where it is 1, not even advance the step count; an undefined tensor means 0.
  void step(const torch::Tensor& grad, const torch::Tensor& found_inf = {});

  const AdamWConfig& config() const { return config_; }
  // float32 (P)
  const torch::Tensor& exp_avg() const { return exp_avg_; }
  // float32 (P)
  const torch::Tensor& exp_avg_sq() const { return exp_avg_sq_; }
  // Updates done, a 0-dim float64 tensor on the device (skipped ones do not count).
  const torch::Tensor& step_count() const { return step_count_; }

 private:
  AdamWConfig config_;
  torch::Tensor params_;
  torch::Tensor exp_avg_;
  torch::Tensor exp_avg_sq_;
  torch::Tensor step_count_;
  torch::Tensor update_;  // scratch (P)
  torch::Tensor denom_;   // scratch (P)
};

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
