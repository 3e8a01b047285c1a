#include "core/lora/lora_step.h"

#include <c10/util/accumulate.h>

namespace brushwork {

namespace {

// The groups' parts of `flat`, one split for all: its gradient is one concatenation, where a narrow() per group would
// each fill a whole flat tensor.
std::vector<torch::Tensor> split_groups(const torch::Tensor& flat, const std::vector<std::vector<int64_t>>& shapes) {
  std::vector<int64_t> sizes;
  for (const auto& shape : shapes) sizes.push_back(c10::multiply_integers(shape));
  auto pieces = flat.split_with_sizes(sizes);
  for (size_t i = 0; i < pieces.size(); ++i) pieces[i] = pieces[i].view(shapes[i]);
  return pieces;
}

}  // namespace

LoraStep::LoraStep(const LoraParameters& parameters, torch::Dtype compute_dtype,
                   std::optional<torch::Generator> dropout_generator) {
  const LoraConfig& config = parameters.config();
  double scale = config.scale();
  if (config.dropout > 0.0 && dropout_generator) {
    keep_probability_ = 1.0 - config.dropout;
    scale /= keep_probability_;
    dropout_generator_ = std::move(dropout_generator);
  }

  const LoraLayout& layout = parameters.layout();
  if (layout.text_encoder) text_encoder_groups_ = layout.text_encoder->groups;
  const auto first = [&](const std::vector<int64_t>& group) {
    return layout.targets[static_cast<size_t>(group.at(0))];
  };
  std::vector<std::vector<int64_t>> a_shapes, b_shapes;
  for (const auto& group : layout.a_groups) {
    a_shapes.push_back({static_cast<int64_t>(group.size()), config.rank, first(group).in_features});
  }
  for (const auto& group : layout.b_groups) {
    b_shapes.push_back({static_cast<int64_t>(group.size()), first(group).out_features, config.rank});
  }
  int64_t a_count = 0;
  for (const auto& shape : a_shapes) a_count += c10::multiply_integers(shape);
  const auto sides = parameters.values().split_with_sizes({a_count, parameters.parameter_count() - a_count});
  a_groups_ = split_groups(sides[0].to(compute_dtype), a_shapes);
  // Scaled here, once for all modules, rather than in each of their products and those products' gradients.
  b_groups_ = split_groups((sides[1] * scale).to(compute_dtype), b_shapes);
}

torch::Tensor LoraStep::dropped(const torch::Tensor& x, int64_t count) {
  std::vector<int64_t> shape = x.sizes().vec();
  shape.insert(shape.begin(), count);
  const auto kept =
      torch::empty(shape, x.options().requires_grad(false)).bernoulli_(keep_probability_, dropout_generator_);
  return x.unsqueeze(0) * kept;
}

LoraStep LoraStep::clone() const {
  LoraStep copy = *this;
  if (dropout_generator_) copy.dropout_generator_ = dropout_generator_->clone();
  return copy;
}

}  // namespace brushwork
