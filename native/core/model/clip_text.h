// Captions to vectors: transformers' CLIPTextModel, frozen, with a LoRA on its attention projections where that is
// wanted.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "core/lora/lora_layout.h"
#include "core/lora/lora_step.h"
#include "core/torch.h"

namespace brushwork {

class JsonFile;
class Weights;

// What `text_encoder/config.json` says, as far as we support it.
struct ClipTextConfig {
  int64_t vocab_size;
  int64_t hidden_size;
  int64_t intermediate_size;
  int64_t num_hidden_layers;
  int64_t num_attention_heads;
  int64_t max_position_embeddings;  // tokens per caption, 77
  std::string hidden_act;           // "quick_gelu" or "gelu"
  double layer_norm_eps;

  // Throws MODEL_LOAD_FAILED naming the key for an architecture that we do not implement.
  static ClipTextConfig read(const JsonFile& file);
};

class ClipText {
 public:
  // Takes every weight from `weights`, with their device and type. Throws MODEL_LOAD_FAILED for missing or ill-shaped
  // keys.
  ClipText(const ClipTextConfig& config, const Weights& weights);
  ~ClipText();
  ClipText(ClipText&&) noexcept;

  const ClipTextConfig& config() const;
  // The modules that a LoRA can train: q_proj, k_proj, v_proj and out_proj of every layer. `join_layouts` puts them
  // behind the UNet's.
  const LoraLayout& lora_layout() const;

  // The same model with weights of `dtype`; those that are of it already are shared.
  ClipText to(torch::Dtype dtype) const;

  // Last hidden state (B, S, hidden_size) float32 of token ids (B, S) int64 on the CPU or the model's device. `lora`
  // null, or without groups for the text encoder: the base model alone. With a LoRA (of this model's type) the result
  // carries autograd to its parameters; a layer's dropouts are drawn for q, k and v in one, then for out. Throws
  // INVALID_REQUEST when S is above max_position_embeddings or (ids on the CPU) an id is outside the vocabulary.
  torch::Tensor encode(const torch::Tensor& token_ids, LoraStep* lora = nullptr) const;

 private:
  struct Parts;
  explicit ClipText(std::unique_ptr<Parts> parts);

  std::unique_ptr<Parts> parts_;
};

}  // namespace brushwork
