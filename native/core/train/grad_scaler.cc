#include "core/train/grad_scaler.h"

namespace brushwork {

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
