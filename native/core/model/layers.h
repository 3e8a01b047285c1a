// The elementary frozen layers. Images are held channels-last, so that (B, C, H, W) and rows of pixels (B H W, C) are
// views of each other.
#pragma once

#include <cstdint>
#include <string>

#include "core/model/weights.h"
#include "core/torch.h"

namespace brushwork {

// y = x W^T + b over the last dimension; `bias` may be undefined.
struct Linear {
  torch::Tensor weight;  // (out, in)
  torch::Tensor bias;    // (out)

  static Linear load(const Weights& weights, int64_t in_features, int64_t out_features, bool with_bias = true);
  // A 1x1 convolution's weights (out, in, 1, 1) as the linear layer that they are on channels-last data.
  static Linear load_1x1(const Weights& weights, int64_t in_features, int64_t out_features);

  torch::Tensor operator()(const torch::Tensor& x) const { return at::linear(x, weight, bias); }
};

struct Conv2d {
  torch::Tensor weight;  // (out, in, k, k), channels last
  torch::Tensor bias;    // (out)
  int64_t stride;
  int64_t padding;

  static Conv2d load(const Weights& weights, int64_t in_channels, int64_t out_channels, int64_t kernel_size,
                     int64_t stride = 1);

  torch::Tensor operator()(const torch::Tensor& x) const { return at::conv2d(x, weight, bias, stride, padding); }
};

struct GroupNorm {
  torch::Tensor weight;  // (C)
  torch::Tensor bias;    // (C)
  int64_t group_count;
  double eps;

  static GroupNorm load(const Weights& weights, int64_t channels, int64_t group_count, double eps);

  torch::Tensor operator()(const torch::Tensor& x) const { return at::group_norm(x, group_count, weight, bias, eps); }
};

struct LayerNorm {
  torch::Tensor weight;  // (C)
  torch::Tensor bias;    // (C)
  double eps;

  static LayerNorm load(const Weights& weights, int64_t channels, double eps = 1e-5);

  torch::Tensor operator()(const torch::Tensor& x) const {
    return at::layer_norm(x, weight.sizes(), weight, bias, eps);
  }
};

// softmax(Q K^T / sqrt(d)) V with `head_count` heads side by side in the last dimension: q (B, T, C), k and v (B, S, C)
// give (B, T, C). Inputs may be slices of wider rows.
torch::Tensor attend(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v, int64_t head_count,
                     bool causal = false);

// (B, C, H, W) channels-last as (B H W, C), and back to the shape of `like`: views.
torch::Tensor image_to_rows(const torch::Tensor& image);
torch::Tensor rows_to_image(const torch::Tensor& rows, const torch::Tensor& like);

}  // namespace brushwork
