#include "core/train/adamw.h"

#include <utility>

#include "core/torch.h"

namespace brushwork {

AdamW::AdamW(const AdamWConfig& config, torch::Tensor params)
    : config_(config),
      params_(std::move(params)),
      exp_avg_(torch::zeros_like(params_)),
      exp_avg_sq_(torch::zeros_like(params_)),
      step_count_(torch::zeros({}, params_.options().dtype(torch::kFloat64))),
      update_(torch::empty_like(params_)),
      denom_(torch::empty_like(params_)) {}

// pytorch/pytorch v2.11.0, torch/optim/adam.py, _single_tensor_adam with decoupled_weight_decay, in the same order of
// operations. `keep` is 0 on a skipped step and 1 otherwise; at 0 every line leaves its buffer as it was.
void AdamW::step(const torch::Tensor& grad, const torch::Tensor& found_inf) {
  const torch::NoGradGuard no_grad;
  const auto keep = found_inf.defined() ? 1.0 - found_inf.to(torch::kFloat64) : torch::ones_like(step_count_);
  const auto& c = config_;
  step_count_ += keep;
  // A first step that is skipped leaves the count at 0, where the bias corrections would divide by zero.
  const auto steps = step_count_.clamp_min(1.0);

  params_.mul_(1.0 - keep * (c.learning_rate * c.weight_decay));

  exp_avg_.lerp_(grad, (keep * (1.0 - c.beta1)).to(torch::kFloat32));
  torch::mul_out(update_, grad, (keep * (1.0 - c.beta2)).to(torch::kFloat32));
  exp_avg_sq_.mul_(1.0 - keep * (1.0 - c.beta2)).addcmul_(update_, grad);

  const auto bias_correction1 = 1.0 - torch::pow(c.beta1, steps);
  const auto bias_correction2 = 1.0 - torch::pow(c.beta2, steps);
  torch::sqrt_out(denom_, exp_avg_sq_).div_(bias_correction2.sqrt()).add_(c.eps);
  torch::mul_out(update_, exp_avg_, (-keep * c.learning_rate / bias_correction1).to(torch::kFloat32));
  params_.add_(update_.div_(denom_));
}

// Defaults: pytorch/pytorch v2.11.0, torch/amp/grad_scaler.py.
constexpr double kInitialScale = 65536.0;
constexpr double kGrowthFactor = 2.0;
constexpr double kBackoffFactor = 0.5;
constexpr int64_t kGrowthInterval = 2000;

GradScaler::GradScaler(torch::Device device)
    : scale_(torch::full({}, kInitialScale, torch::dtype(torch::kFloat32).device(device))),
      growth_tracker_(torch::zeros({}, torch::dtype(torch::kInt32).device(device))) {}

torch::Tensor GradScaler::unscale_(torch::Tensor& grad) {
  const torch::NoGradGuard no_grad;
  auto found_inf = torch::zeros_like(scale_);
  at::_amp_foreach_non_finite_check_and_unscale_({grad}, found_inf, scale_.reciprocal());
  grad.nan_to_num_(0.0, 0.0, 0.0);
  return found_inf;
}

void GradScaler::update(const torch::Tensor& found_inf) {
  const torch::NoGradGuard no_grad;
  at::_amp_update_scale_(scale_, growth_tracker_, found_inf, kGrowthFactor, kBackoffFactor, kGrowthInterval);
}

// pytorch/pytorch v2.11.0, torch/nn/utils/clip_grad.py: the norm of all gradients seen as one vector.
torch::Tensor clip_grad_norm_(torch::Tensor& grad, double max_norm) {
  const torch::NoGradGuard no_grad;
  auto total_norm = torch::linalg_vector_norm(grad, 2);
  grad.mul_((max_norm / (total_norm + 1e-6)).clamp_max(1.0));
  return total_norm;
}

}  // namespace brushwork
