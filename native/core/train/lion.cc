#include "core/train/lion.h"

#include <utility>

namespace brushwork {

Lion::Lion(const LionConfig& config, torch::Tensor params)
    : Optimizer(std::move(params)), config_(config), exp_avg_(torch::zeros_like(params_)) {}

// "Symbolic Discovery of Optimization Algorithms", arXiv:2302.06675, Algorithm 2. `keep` is 0 on a skipped step and 1
// otherwise; at 0 every line leaves its buffer as it was.
void Lion::step(const torch::Tensor& grad, const torch::Tensor& learning_rate, const torch::Tensor& found_inf) {
  const torch::NoGradGuard no_grad;
  const auto& c = config_;
  const auto keep = count_step(found_inf);

  params_.mul_(1.0 - keep * (learning_rate * c.weight_decay));
  update_.copy_(exp_avg_).mul_(c.beta1).add_(grad, 1.0 - c.beta1).sign_();
  params_.add_(update_.mul_((-keep * learning_rate).to(torch::kFloat32)));

  torch::mul_out(update_, grad, (keep * (1.0 - c.beta2)).to(torch::kFloat32));
  exp_avg_.mul_(1.0 - keep * (1.0 - c.beta2)).add_(update_);
}

std::vector<NamedTensor> Lion::state() const { return {{"exp_avg", exp_avg_}}; }

}  // namespace brushwork
