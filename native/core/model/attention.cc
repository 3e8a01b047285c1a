#include "core/model/attention.h"

#include "core/model/lora_linear.h"

namespace brushwork {

size_t TextProjections::add(const torch::Tensor& key_weight, const torch::Tensor& value_weight) {
  parts_.push_back(key_weight);
  parts_.push_back(value_weight);
  columns_.push_back(key_weight.size(0) + value_weight.size(0));
  return columns_.size() - 1;
}

void TextProjections::finish() {
  all_ = at::cat(parts_);
  parts_.clear();
}

TextInput TextProjections::prepare(const torch::Tensor& states, const torch::Tensor& keys_values,
                                   LoraStep* lora) const {
  // One split for all: its gradient is one concatenation.
  TextInput input{keys_values.split_with_sizes(columns_, 2), {}};
  if (lora != nullptr) {
    input.lora_low = lora_low(*lora, LoraLayoutBuilder::kTextGroup, states.flatten(0, 1)).split(2);
  }
  return input;
}

SelfAttention::SelfAttention(const Weights& weights, int64_t channels, int64_t head_count, LoraLayoutBuilder& layout)
    : head_count_(head_count),
      qkv_weight_(
          at::cat({weights.take("to_q.weight", {channels, channels}), weights.take("to_k.weight", {channels, channels}),
                   weights.take("to_v.weight", {channels, channels})})),
      out_(Linear::load(weights.at("to_out", 0), channels, channels)),
      qkv_lora_(layout.add(weights.path(), {"to_q", "to_k", "to_v"}, channels, channels)),
      out_lora_(layout.add(weights.path(), {"to_out.0"}, channels, channels)) {}

torch::Tensor SelfAttention::forward(const torch::Tensor& x, int64_t batch_size, LoraStep* lora) const {
  auto qkv = at::linear(x, qkv_weight_).unflatten(1, {3, x.size(1)}).transpose(0, 1);  // (3, N, C)
  if (lora != nullptr) qkv = lora_add(*lora, qkv_lora_.b, qkv, lora_low(*lora, qkv_lora_.a, x));
  const auto parts = qkv.unflatten(1, {batch_size, x.size(0) / batch_size}).unbind(0);
  return lora_linear(lora, out_lora_, out_, attend(parts[0], parts[1], parts[2], head_count_).flatten(0, 1));
}

CrossAttention::CrossAttention(const Weights& weights, int64_t channels, const AttentionShape& shape,
                               LoraLayoutBuilder& layout, TextProjections& text)
    : head_count_(shape.head_count),
      q_(Linear::load(weights.at("to_q"), channels, channels, /*with_bias=*/false)),
      out_(Linear::load(weights.at("to_out", 0), channels, channels)),
      text_index_(text.add(weights.take("to_k.weight", {channels, shape.text_width}),
                           weights.take("to_v.weight", {channels, shape.text_width}))),
      q_lora_(layout.add(weights.path(), {"to_q"}, channels, channels)),
      kv_lora_(layout.add_text(weights.path(), {"to_k", "to_v"}, shape.text_width, channels)),
      out_lora_(layout.add(weights.path(), {"to_out.0"}, channels, channels)) {}

torch::Tensor CrossAttention::forward(const torch::Tensor& x, const TextInput& text, LoraStep* lora) const {
  const auto& frozen = text.keys_values[text_index_];
  const auto channels = x.size(1), batch_size = frozen.size(0);
  auto keys_values = frozen.flatten(0, 1).unflatten(1, {2, channels}).transpose(0, 1);  // (2, B S, C)
  if (lora != nullptr) keys_values = lora_add(*lora, kv_lora_.b, keys_values, text.lora_low[text_index_]);
  const auto parts = keys_values.unflatten(1, {batch_size, frozen.size(1)}).unbind(0);
  const auto q = lora_linear(lora, q_lora_, q_, x).unflatten(0, {batch_size, x.size(0) / batch_size});
  return lora_linear(lora, out_lora_, out_, attend(q, parts[0], parts[1], head_count_).flatten(0, 1));
}

TransformerBlock::TransformerBlock(const Weights& weights, int64_t channels, const AttentionShape& shape,
                                   LoraLayoutBuilder& layout, TextProjections& text)
    : norm1_(LayerNorm::load(weights.at("norm1"), channels)),
      self_attention_(weights.at("attn1"), channels, shape.head_count, layout),
      norm2_(LayerNorm::load(weights.at("norm2"), channels)),
      cross_attention_(weights.at("attn2"), channels, shape, layout, text),
      norm3_(LayerNorm::load(weights.at("norm3"), channels)),
      feed_forward_in_(Linear::load(weights.at("ff.net.0.proj"), channels, 8 * channels)),
      feed_forward_out_(Linear::load(weights.at("ff.net.2"), 4 * channels, channels)) {}

torch::Tensor TransformerBlock::forward(const torch::Tensor& x, const TextInput& text, LoraStep* lora) const {
  // 1. Image tokens to themselves. Outputs of linear layers are needed by no gradient, so inputs are added in place.
  auto hidden = self_attention_.forward(norm1_(x), text.batch_size(), lora).add_(x);
  // 2. Image tokens to the text.
  hidden = cross_attention_.forward(norm2_(hidden), text, lora).add_(hidden);
  // 3. Gated feed-forward.
  const auto halves = feed_forward_in_(norm3_(hidden)).chunk(2, 1);
  return feed_forward_out_(halves[0] * at::gelu(halves[1])).add_(hidden);
}

Transformer2d::Transformer2d(const Weights& weights, int64_t channels, const AttentionShape& shape,
                             LoraLayoutBuilder& layout, TextProjections& text)
    : norm_(GroupNorm::load(weights.at("norm"), channels, shape.group_count, 1e-6)),
      in_(shape.use_linear_projection ? Linear::load(weights.at("proj_in"), channels, channels)
                                      : Linear::load_1x1(weights.at("proj_in"), channels, channels)),
      out_(shape.use_linear_projection ? Linear::load(weights.at("proj_out"), channels, channels)
                                       : Linear::load_1x1(weights.at("proj_out"), channels, channels)) {
  for (size_t i = 0; i < static_cast<size_t>(shape.layer_count); ++i) {
    blocks_.emplace_back(weights.at("transformer_blocks", i), channels, shape, layout, text);
  }
}

torch::Tensor Transformer2d::forward(const torch::Tensor& x, const TextInput& text, LoraStep* lora) const {
  auto tokens = in_(image_to_rows(norm_(x)));
  for (const TransformerBlock& block : blocks_) tokens = block.forward(tokens, text, lora);
  return rows_to_image(out_(tokens).add_(image_to_rows(x)), x);
}

}  // namespace brushwork
