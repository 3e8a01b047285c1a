// Defines: LionConfig, Lion.
#pragma once

#include <vector>

#include "core/train/optimizer.h"

namespace brushwork {

struct LionConfig {
  double weight_decay;  // e.g. 0.03, decoupled
  double beta1 = 0.9;
  double beta2 = 0.99;
};

// Lion: steps of one size in the direction of the momentum's sign, with half of AdamW's state.
class Lion : public Optimizer {
 public:
  Lion(const LionConfig& config, torch::Tensor params);

  void step(const torch::Tensor& grad, const torch::Tensor& learning_rate, const torch::Tensor& found_inf) override;
  std::vector<NamedTensor> state() const override;

 private:
  LionConfig config_;
  torch::Tensor exp_avg_;  // (P)
};

}  // namespace brushwork
