#include "core/lora/lora_step.h"

namespace brushwork {

LoraStep::LoraStep(const LoraParameters& parameters, torch::Dtype compute_dtype,
                   std::optional<torch::Generator> dropout_generator)
    : scale_(parameters.config().scale()) {
  const double dropout = parameters.config().dropout;
  if (dropout > 0.0 && dropout_generator) {
    keep_probability_ = 1.0 - dropout;
    scale_ /= keep_probability_;
    dropout_generator_ = std::move(dropout_generator);
  }

  // One split for all groups: its gradient is one concatenation, where a narrow() per group would each fill a whole
  // flat tensor.
  const LoraLayout& layout = parameters.layout();
  const int64_t rank = parameters.config().rank;
  std::vector<std::vector<int64_t>> shapes;
  std::vector<int64_t> sizes;
  const auto add = [&](int64_t n, int64_t rows, int64_t columns) {
    shapes.push_back({n, rows, columns});
    sizes.push_back(n * rows * columns);
  };
  const auto first = [&](const std::vector<int64_t>& group) {
    return layout.targets[static_cast<size_t>(group.at(0))];
  };
  for (const auto& group : layout.a_groups) {
    add(static_cast<int64_t>(group.size()), rank, first(group).in_features);
  }
  for (const auto& group : layout.b_groups) {
    add(static_cast<int64_t>(group.size()), first(group).out_features, rank);
  }
  const auto pieces = parameters.values().to(compute_dtype).split_with_sizes(sizes);
  for (size_t i = 0; i < pieces.size(); ++i) {
    auto& groups = i < layout.a_groups.size() ? a_groups_ : b_groups_;
    groups.push_back(pieces[i].view(shapes[i]));
  }
}

torch::Tensor LoraStep::dropped(const torch::Tensor& x, int64_t count) {
  std::vector<int64_t> shape = x.sizes().vec();
  shape.insert(shape.begin(), count);
  const auto kept = torch::empty(shape, x.options().dtype(torch::kBool).requires_grad(false))
                        .bernoulli_(keep_probability_, dropout_generator_);
  return x.unsqueeze(0) * kept;
}

}  // namespace brushwork
