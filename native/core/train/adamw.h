// Defines: AdamWConfig, AdamW.
#pragma once

#include <vector>

#include "core/train/optimizer.h"

namespace brushwork {

struct AdamWConfig {
  double weight_decay;  // e.g. 0.01, decoupled
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
};

// AdamW ("Decoupled Weight Decay Regularization", arXiv:1711.05101), as torch.optim.AdamW.
class AdamW : public Optimizer {
 public:
  AdamW(const AdamWConfig& config, torch::Tensor params);

  void step(const torch::Tensor& grad, const torch::Tensor& learning_rate, const torch::Tensor& found_inf) override;
  std::vector<NamedTensor> state() const override;

 private:
  AdamWConfig config_;
  torch::Tensor exp_avg_;     // (P)
  torch::Tensor exp_avg_sq_;  // (P)
  torch::Tensor denom_;       // scratch (P)
};

}  // namespace brushwork
