#include "core/train/prodigy.h"

#include <cmath>
#include <limits>
#include <utility>

namespace brushwork {

namespace {

torch::Tensor to_float(const torch::Tensor& value) { return value.to(torch::kFloat32); }

}  // namespace

Prodigy::Prodigy(const ProdigyConfig& config, torch::Tensor params)
    : Optimizer(std::move(params)),
      config_(config),
      initial_(params_.clone()),
      exp_avg_(torch::zeros_like(params_)),
      exp_avg_sq_(torch::zeros_like(params_)),
      s_(torch::zeros_like(params_)),
      d_(torch::full_like(step_count_, config.d0)),
      d_numerator_(torch::zeros_like(step_count_)),
      d_steps_(torch::zeros_like(step_count_)),
      denom_(torch::empty_like(params_)) {}

// konstmish/prodigy v1.1.2, prodigyopt/prodigy.py, Prodigy.step with use_bias_correction and safeguard_warmup. With an
// unlimited growth_rate, d and d_max are one number. At `keep` or `moves` 0 the lines leave their buffers as they were.
void Prodigy::step(const torch::Tensor& grad, const torch::Tensor& learning_rate, const torch::Tensor& found_inf) {
  const torch::NoGradGuard no_grad;
  const auto& c = config_;
  const double beta3 = std::sqrt(c.beta2);
  // As in the original, a learning rate of 0 (the first of a warm-up) leaves everything alone.
  const auto keep = count_step(found_inf) * (learning_rate > 0.0);
  const auto steps = d_steps_ + 1.0;
  const auto bias_correction = (1.0 - torch::pow(c.beta2, steps)).sqrt() / (1.0 - torch::pow(c.beta1, steps));
  const auto rate = d_ * learning_rate * bias_correction;
  const auto relative_d = d_ / c.d0;

  // 1. The numerator of d: how far the gradient agrees with the way come so far.
  torch::sub_out(update_, initial_, params_);
  const auto numerator = d_numerator_ * beta3 + relative_d * rate * torch::dot(grad, update_).to(torch::kFloat64);

  // 2. Adam's moments of d times the gradient, and the denominator's sum.
  torch::mul_out(update_, grad, to_float(keep * d_ * (1.0 - c.beta1)));
  exp_avg_.mul_(1.0 - keep * (1.0 - c.beta1)).add_(update_);
  torch::mul_out(update_, grad, to_float(keep * d_ * d_ * (1.0 - c.beta2)));
  exp_avg_sq_.mul_(1.0 - keep * (1.0 - c.beta2)).addcmul_(update_, grad);
  torch::mul_out(update_, grad, to_float(keep * relative_d * d_));
  s_.mul_(1.0 - keep * (1.0 - beta3)).add_(update_);

  // 3. d only grows. Without any gradient so far there is nothing to tell it from.
  const auto denominator = torch::linalg_vector_norm(s_, 1).to(torch::kFloat64);
  const auto moves = keep * (denominator > 0.0);
  const auto estimate = numerator / denominator.clamp_min(std::numeric_limits<double>::min());
  d_.copy_(torch::where(moves > 0.0, torch::maximum(d_, estimate), d_));
  d_numerator_.copy_(torch::where(moves > 0.0, numerator, d_numerator_));
  d_steps_ += moves;

  // 4. The step, its length still by the d of before.
  torch::mul_out(update_, params_, to_float(-moves * rate * c.weight_decay));
  params_.add_(update_);
  torch::sqrt_out(denom_, exp_avg_sq_).add_(to_float(d_ * c.eps));
  torch::mul_out(update_, exp_avg_, to_float(-moves * rate));
  params_.add_(update_.div_(denom_));
}

std::vector<NamedTensor> Prodigy::state() const {
  return {{"exp_avg", exp_avg_},         {"exp_avg_sq", exp_avg_sq_}, {"s", s_}, {"d", d_},
          {"d_numerator", d_numerator_}, {"d_steps", d_steps_}};
}

}  // namespace brushwork
