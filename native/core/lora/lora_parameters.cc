#include "core/lora/lora_parameters.h"

#include <cmath>

#include "core/errors.h"

namespace brushwork {

LoraParameters::LoraParameters(const LoraLayout& layout, const LoraConfig& config, torch::Device device)
    : config_(config), layout_(layout), a_offsets_(layout.targets.size()), b_offsets_(layout.targets.size()) {
  if (config.rank < 1) throw Error(ErrorCode::kInvalidRequest, "rank must be at least 1");
  if (!(config.dropout >= 0.0 && config.dropout < 1.0)) {
    throw Error(ErrorCode::kInvalidRequest, "dropout must be at least 0 and below 1");
  }
  if (!(config.alpha > 0.0 && std::isfinite(config.alpha))) {
    throw Error(ErrorCode::kInvalidRequest, "alpha must be a positive number");
  }
  if (layout.targets.empty())
    throw Error(ErrorCode::kInvalidRequest, "this model has no layer that a LoRA could train");

  int64_t count = 0;
  for (const auto& group : layout_.a_groups) {
    for (const int64_t i : group) {
      a_offsets_[static_cast<size_t>(i)] = count;
      count += config.rank * targets()[static_cast<size_t>(i)].in_features;
    }
  }
  for (const auto& group : layout_.b_groups) {
    for (const int64_t i : group) {
      b_offsets_[static_cast<size_t>(i)] = count;
      count += config.rank * targets()[static_cast<size_t>(i)].out_features;
    }
  }
  values_ = torch::zeros({count}, torch::dtype(torch::kFloat32).device(device).requires_grad(true));
  gradients_ = torch::zeros({count}, torch::dtype(torch::kFloat32).device(device));
  values_.mutable_grad() = gradients_;
}

void LoraParameters::initialize(const std::function<torch::Generator(int64_t ordinal)>& generator_of) {
  const torch::NoGradGuard no_grad;
  for (int64_t i = 0; i < module_count(); ++i) {
    const int64_t in = targets()[static_cast<size_t>(i)].in_features;
    const double bound = 1.0 / std::sqrt(static_cast<double>(in));
    auto drawn = torch::empty({config_.rank, in}, torch::kFloat32);
    drawn.uniform_(-bound, bound, generator_of(i));
    a(i).copy_(drawn);
    b(i).zero_();
  }
  gradients_.zero_();
}

torch::Tensor LoraParameters::view_a(const torch::Tensor& flat, int64_t i) const {
  const int64_t in = targets()[static_cast<size_t>(i)].in_features;
  return flat.narrow(0, a_offsets_[static_cast<size_t>(i)], config_.rank * in).view({config_.rank, in});
}

torch::Tensor LoraParameters::view_b(const torch::Tensor& flat, int64_t i) const {
  const int64_t out = targets()[static_cast<size_t>(i)].out_features;
  return flat.narrow(0, b_offsets_[static_cast<size_t>(i)], config_.rank * out).view({out, config_.rank});
}

}  // namespace brushwork
