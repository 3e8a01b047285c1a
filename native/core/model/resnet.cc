#include "core/model/resnet.h"

namespace brushwork {

int64_t TimeProjections::add(const Weights& weights, int64_t time_channels, int64_t out_channels) {
  parts_.push_back(Linear::load(weights, time_channels, out_channels));
  const int64_t column = columns_;
  columns_ += out_channels;
  return column;
}

void TimeProjections::finish() {
  std::vector<torch::Tensor> rows, biases;
  for (const Linear& part : parts_) {
    rows.push_back(part.weight);
    biases.push_back(part.bias);
  }
  all_ = {at::cat(rows), at::cat(biases)};
  parts_.clear();
}

torch::Tensor TimeProjections::project(const torch::Tensor& embedding) const { return all_(at::silu(embedding)); }

ResnetBlock::ResnetBlock(const Weights& weights, const Shape& shape, TimeProjections* projections)
    : norm1_(GroupNorm::load(weights.at("norm1"), shape.in_channels, shape.group_count, shape.eps)),
      conv1_(Conv2d::load(weights.at("conv1"), shape.in_channels, shape.out_channels, 3)),
      norm2_(GroupNorm::load(weights.at("norm2"), shape.out_channels, shape.group_count, shape.eps)),
      conv2_(Conv2d::load(weights.at("conv2"), shape.out_channels, shape.out_channels, 3)),
      out_channels_(shape.out_channels) {
  if (shape.time_channels > 0) {
    time_column_ = projections->add(weights.at("time_emb_proj"), shape.time_channels, shape.out_channels);
  }
  if (shape.in_channels != shape.out_channels) {
    shortcut_ = Conv2d::load(weights.at("conv_shortcut"), shape.in_channels, shape.out_channels, 1);
  }
}

torch::Tensor ResnetBlock::forward(const torch::Tensor& x, const torch::Tensor& time) const {
  // Outputs of convolutions are not needed for their gradients, so they may be changed in place.
  auto hidden = conv1_(at::silu(norm1_(x)));
  if (time.defined()) hidden.add_(time.narrow(1, time_column_, out_channels_).unsqueeze(-1).unsqueeze(-1));
  hidden = conv2_(at::silu(norm2_(hidden)));
  return hidden.add_(shortcut_ ? (*shortcut_)(x) : x);
}

Downsample::Downsample(const Weights& weights, int64_t channels, bool pad_all_round)
    : conv_(Conv2d::load(weights.at("conv"), channels, channels, 3, /*stride=*/2)), pad_all_round_(pad_all_round) {
  if (!pad_all_round_) conv_.padding = 0;
}

torch::Tensor Downsample::forward(const torch::Tensor& x) const {
  return conv_(pad_all_round_ ? x : at::constant_pad_nd(x, {0, 1, 0, 1}));
}

Upsample::Upsample(const Weights& weights, int64_t channels)
    : conv_(Conv2d::load(weights.at("conv"), channels, channels, 3)) {}

torch::Tensor Upsample::forward(const torch::Tensor& x) const {
  return conv_(at::upsample_nearest2d(x, {2 * x.size(2), 2 * x.size(3)}));
}

}  // namespace brushwork
