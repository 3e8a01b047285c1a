#include "core/train/optimizer.h"

#include <utility>

#include "core/train/adamw.h"
#include "core/train/lion.h"
#include "core/train/prodigy.h"

namespace brushwork {

const char* optimizer_name(OptimizerKind kind) {
  switch (kind) {
    case OptimizerKind::kAdamW:
      return "adamw";
    case OptimizerKind::kLion:
      return "lion";
    case OptimizerKind::kProdigy:
      return "prodigy";
  }
  return "adamw";
}

Optimizer::Optimizer(torch::Tensor params)
    : params_(std::move(params)),
      step_count_(torch::zeros({}, params_.options().dtype(torch::kFloat64))),
      update_(torch::empty_like(params_)) {}

torch::Tensor Optimizer::count_step(const torch::Tensor& found_inf) {
  const auto keep = found_inf.defined() ? 1.0 - found_inf.to(torch::kFloat64) : torch::ones_like(step_count_);
  step_count_ += keep;
  return keep;
}

std::unique_ptr<Optimizer> make_optimizer(OptimizerKind kind, double weight_decay, torch::Tensor params) {
  switch (kind) {
    case OptimizerKind::kAdamW:
      break;
    case OptimizerKind::kLion:
      return std::make_unique<Lion>(LionConfig{.weight_decay = weight_decay}, std::move(params));
    case OptimizerKind::kProdigy:
      return std::make_unique<Prodigy>(ProdigyConfig{.weight_decay = weight_decay}, std::move(params));
  }
  return std::make_unique<AdamW>(AdamWConfig{.weight_decay = weight_decay}, std::move(params));
}

}  // namespace brushwork
