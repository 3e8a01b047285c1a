#include "core/model/layers.h"

namespace brushwork {

Linear Linear::load(const Weights& weights, int64_t in_features, int64_t out_features, bool with_bias) {
  Linear layer{weights.take("weight", {out_features, in_features}), {}};
  if (with_bias) layer.bias = weights.take("bias", {out_features});
  return layer;
}

Linear Linear::load_1x1(const Weights& weights, int64_t in_features, int64_t out_features) {
  return {weights.take("weight", {out_features, in_features, 1, 1}).view({out_features, in_features}),
          weights.take("bias", {out_features})};
}

Conv2d Conv2d::load(const Weights& weights, int64_t in_channels, int64_t out_channels, int64_t kernel_size,
                    int64_t stride) {
  return {weights.take("weight", {out_channels, in_channels, kernel_size, kernel_size})
              .contiguous(at::MemoryFormat::ChannelsLast),
          weights.take("bias", {out_channels}), stride, kernel_size / 2};
}

GroupNorm GroupNorm::load(const Weights& weights, int64_t channels, int64_t group_count, double eps) {
  return {weights.take("weight", {channels}), weights.take("bias", {channels}), group_count, eps};
}

LayerNorm LayerNorm::load(const Weights& weights, int64_t channels, double eps) {
  return {weights.take("weight", {channels}), weights.take("bias", {channels}), eps};
}

torch::Tensor attend(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v, int64_t head_count,
                     bool causal) {
  const auto heads = [head_count](const torch::Tensor& x) {  // (B, T, C) -> (B, heads, T, C / heads)
    return x.unflatten(2, {head_count, x.size(2) / head_count}).transpose(1, 2);
  };
  const auto mixed = at::scaled_dot_product_attention(heads(q), heads(k), heads(v), {}, 0.0, causal);
  return mixed.transpose(1, 2).flatten(2);
}

torch::Tensor image_to_rows(const torch::Tensor& image) { return image.permute({0, 2, 3, 1}).flatten(0, 2); }

torch::Tensor rows_to_image(const torch::Tensor& rows, const torch::Tensor& like) {
  return rows.unflatten(0, {like.size(0), like.size(2), like.size(3)}).permute({0, 3, 1, 2});
}

}  // namespace brushwork
