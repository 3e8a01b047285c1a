// The transformer parts of the UNet, with their LoRA.
//
// Formulas: https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/attention.py
// (BasicTransformerBlock), attention_processor.py (AttnProcessor2_0), activations.py (GEGLU) and
// transformers/transformer_2d.py (Transformer2DModel) of the same commit.
//
// Letters in shape comments: B batch, T image tokens (H W), N = B T, S text tokens, D text width, C channels, r rank.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/lora/lora_layout.h"
#include "core/lora/lora_step.h"
#include "core/model/layers.h"

namespace brushwork {

// What all cross attentions of one forward pass read: the frozen keys and values of the text, and the LoRA's first half
// on the text, each computed once for all of them. Where the text encoder is trained, gradients flow through both.
struct TextInput {
  std::vector<torch::Tensor> keys_values;  // per cross attention (B, S, 2 C)
  std::vector<torch::Tensor>
      lora_low;  // per cross attention (2, B S, r): A(dropout(text)) of to_k and to_v; empty without LoRA

  int64_t batch_size() const { return keys_values.front().size(0); }
};

// Collects the frozen key and value weights of all cross attentions while a UNet loads.
class TextProjections {
 public:
  // Returns the place of this cross attention in `TextInput::keys_values` and `lora_low`.
  size_t add(const torch::Tensor& key_weight, const torch::Tensor& value_weight);
  void finish();
  // (B, S, D) -> (B, S, sum of 2 C).
  torch::Tensor project(const torch::Tensor& states) const { return at::linear(states, all_); }
  // Keys, values and the LoRA's first half for one batch; `lora` may be null.
  TextInput prepare(const torch::Tensor& states, const torch::Tensor& keys_values, LoraStep* lora) const;

 private:
  std::vector<torch::Tensor> parts_;
  torch::Tensor all_;             // (sum of 2 C, D)
  std::vector<int64_t> columns_;  // per cross attention 2 C
};

// What a UNet part needs while it loads, besides its weights.
struct AttentionShape {
  int64_t head_count;
  int64_t text_width;  // D
  int64_t group_count;
  int64_t layer_count;  // transformer blocks per attention
  bool use_linear_projection;
};

// Attention of image tokens to themselves; query, key and value weights are one matrix.
class SelfAttention {
 public:
  SelfAttention(const Weights& weights, int64_t channels, int64_t head_count, LoraLayoutBuilder& layout);
  // (N, C) -> (N, C)
  torch::Tensor forward(const torch::Tensor& x, int64_t batch_size, LoraStep* lora) const;

 private:
  int64_t head_count_;
  torch::Tensor qkv_weight_;  // (3 C, C)
  Linear out_;
  LoraLayoutBuilder::Groups qkv_lora_;
  LoraLayoutBuilder::Groups out_lora_;
};

// Attention of image tokens to the text.
class CrossAttention {
 public:
  CrossAttention(const Weights& weights, int64_t channels, const AttentionShape& shape, LoraLayoutBuilder& layout,
                 TextProjections& text);
  // (N, C) -> (N, C); the batch size is the text's
  torch::Tensor forward(const torch::Tensor& x, const TextInput& text, LoraStep* lora) const;

 private:
  int64_t head_count_;
  Linear q_;
  Linear out_;
  size_t text_index_;
  LoraLayoutBuilder::Groups q_lora_;
  LoraLayoutBuilder::Groups kv_lora_;
  LoraLayoutBuilder::Groups out_lora_;
};

// Self attention, cross attention and a gated feed-forward, each normalised before and added to its input.
class TransformerBlock {
 public:
  TransformerBlock(const Weights& weights, int64_t channels, const AttentionShape& shape, LoraLayoutBuilder& layout,
                   TextProjections& text);
  // (N, C) -> (N, C); the batch size is the text's
  torch::Tensor forward(const torch::Tensor& x, const TextInput& text, LoraStep* lora) const;

 private:
  LayerNorm norm1_;
  SelfAttention self_attention_;
  LayerNorm norm2_;
  CrossAttention cross_attention_;
  LayerNorm norm3_;
  Linear feed_forward_in_;   // C -> 2 * 4 C: values and gates
  Linear feed_forward_out_;  // 4 C -> C
};

// Transformer blocks on an image, added to it.
class Transformer2d {
 public:
  Transformer2d(const Weights& weights, int64_t channels, const AttentionShape& shape, LoraLayoutBuilder& layout,
                TextProjections& text);
  torch::Tensor forward(const torch::Tensor& x, const TextInput& text, LoraStep* lora) const;  // (B, C, H, W), the same

 private:
  GroupNorm norm_;
  Linear in_;
  std::vector<TransformerBlock> blocks_;
  Linear out_;
};

}  // namespace brushwork
