// Defines: ProdigyConfig, Prodigy.
#pragma once

#include <vector>

#include "core/train/optimizer.h"

namespace brushwork {

struct ProdigyConfig {
  double weight_decay;  // e.g. 0.01, decoupled
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double d0 = 1e-6;  // the first estimate of d
};

// Prodigy ("Prodigy: An Expeditiously Adaptive Parameter-Free Learner", arXiv:2306.06101): Adam that estimates by
// itself how far the parameters have to go, d, and multiplies its learning rate (1 as a rule) by that. Bias correction
// and safeguard_warmup are on, as in diffusers' examples/advanced_diffusion_training.
class Prodigy : public Optimizer {
 public:
  // The values of `params` are the starting point from which d is measured.
  Prodigy(const ProdigyConfig& config, torch::Tensor params);

  void step(const torch::Tensor& grad, const torch::Tensor& learning_rate, const torch::Tensor& found_inf) override;
  // Not the starting point: a run draws that anew from its seed.
  std::vector<NamedTensor> state() const override;
  torch::Tensor learning_rate_factor() const override { return d_; }

 private:
  ProdigyConfig config_;
  torch::Tensor initial_;      // (P), the starting point
  torch::Tensor exp_avg_;      // (P)
  torch::Tensor exp_avg_sq_;   // (P)
  torch::Tensor s_;            // (P), decaying sum of gradients
  torch::Tensor d_;            // 0-dim float64
  torch::Tensor d_numerator_;  // 0-dim float64
  torch::Tensor d_steps_;      // 0-dim float64: steps that moved; those with a learning rate of 0 do not
  torch::Tensor denom_;        // scratch (P)
};

}  // namespace brushwork
