#include "core/train/adamw.h"

#include <utility>

namespace brushwork {

AdamW::AdamW(const AdamWConfig& config, torch::Tensor params)
    : Optimizer(std::move(params)),
      config_(config),
      exp_avg_(torch::zeros_like(params_)),
      exp_avg_sq_(torch::zeros_like(params_)),
      denom_(torch::empty_like(params_)) {}

// pytorch/pytorch v2.11.0, torch/optim/adam.py, _single_tensor_adam with decoupled_weight_decay, in the same order of
// operations. `keep` is 0 on a skipped step and 1 otherwise; at 0 every line leaves its buffer as it was.
void AdamW::step(const torch::Tensor& grad, const torch::Tensor& learning_rate, const torch::Tensor& found_inf) {
  const torch::NoGradGuard no_grad;
  const auto& c = config_;
  const auto keep = count_step(found_inf);
  // A first step that is skipped leaves the count at 0, where the bias corrections would divide by zero.
  const auto steps = step_count_.clamp_min(1.0);

  params_.mul_(1.0 - keep * (learning_rate * c.weight_decay));

  exp_avg_.lerp_(grad, (keep * (1.0 - c.beta1)).to(torch::kFloat32));
  torch::mul_out(update_, grad, (keep * (1.0 - c.beta2)).to(torch::kFloat32));
  exp_avg_sq_.mul_(1.0 - keep * (1.0 - c.beta2)).addcmul_(update_, grad);

  const auto bias_correction1 = 1.0 - torch::pow(c.beta1, steps);
  const auto bias_correction2 = 1.0 - torch::pow(c.beta2, steps);
  torch::sqrt_out(denom_, exp_avg_sq_).div_(bias_correction2.sqrt()).add_(c.eps);
  torch::mul_out(update_, exp_avg_, (-keep * learning_rate / bias_correction1).to(torch::kFloat32));
  params_.add_(update_.div_(denom_));
}

std::vector<NamedTensor> AdamW::state() const { return {{"exp_avg", exp_avg_}, {"exp_avg_sq", exp_avg_sq_}}; }

}  // namespace brushwork
