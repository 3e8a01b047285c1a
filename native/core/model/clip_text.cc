#include "core/model/clip_text.h"

#include <utility>
#include <vector>

#include "core/errors.h"
#include "core/model/layers.h"
#include "core/model/lora_linear.h"
#include "core/model_io/json.h"

// Structure: https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/models/clip/modeling_clip.py
// (CLIPTextModel, CLIPEncoderLayer) and activations.py (QuickGELUActivation) of the same commit.
// LoRA targets: https://github.com/huggingface/diffusers/blob/v0.42.1/examples/dreambooth/train_dreambooth_lora.py.

namespace brushwork {

namespace {

Linear cast(const Linear& layer, torch::Dtype dtype) { return {layer.weight.to(dtype), layer.bias.to(dtype)}; }

LayerNorm cast(const LayerNorm& layer, torch::Dtype dtype) {
  return {layer.weight.to(dtype), layer.bias.to(dtype), layer.eps};
}

// This model's own groups, as a joint layout numbers them.
LoraGroups of_text_encoder(const LoraStep& lora, const LoraGroups& own) {
  const LoraGroups& first = *lora.text_encoder_groups();
  return {first.a + own.a, first.b + own.b};
}

struct EncoderLayer {
  LayerNorm norm1;
  Linear qkv;  // the three projections as one matrix
  Linear out;
  LayerNorm norm2;
  Linear in_mlp;
  Linear out_mlp;
  LoraGroups qkv_lora;
  LoraGroups out_lora;

  // `path`: that of the layer's LoRA targets.
  static EncoderLayer load(const Weights& weights, const std::string& path, const ClipTextConfig& config,
                           LoraLayoutBuilder& layout) {
    const int64_t width = config.hidden_size;
    std::vector<torch::Tensor> rows, biases;
    for (const char* name : {"q_proj", "k_proj", "v_proj"}) {
      const Linear part = Linear::load(weights.at("self_attn").at(name), width, width);
      rows.push_back(part.weight);
      biases.push_back(part.bias);
    }
    return {LayerNorm::load(weights.at("layer_norm1"), width, config.layer_norm_eps),
            Linear{at::cat(rows), at::cat(biases)},
            Linear::load(weights.at("self_attn.out_proj"), width, width),
            LayerNorm::load(weights.at("layer_norm2"), width, config.layer_norm_eps),
            Linear::load(weights.at("mlp.fc1"), width, config.intermediate_size),
            Linear::load(weights.at("mlp.fc2"), config.intermediate_size, width),
            layout.add(path + ".self_attn", {"q_proj", "k_proj", "v_proj"}, width, width),
            layout.add(path + ".self_attn", {"out_proj"}, width, width)};
  }

  EncoderLayer to(torch::Dtype dtype) const {
    return {cast(norm1, dtype),  cast(qkv, dtype),     cast(out, dtype), cast(norm2, dtype),
            cast(in_mlp, dtype), cast(out_mlp, dtype), qkv_lora,         out_lora};
  }

  // Query, key and value of x (B, S, hidden_size), each of that shape.
  std::vector<torch::Tensor> project(const torch::Tensor& x, LoraStep* lora) const {
    if (lora == nullptr) return qkv(x).chunk(3, 2);
    const auto rows = x.flatten(0, 1);
    const auto frozen = qkv(rows).unflatten(1, {3, x.size(2)}).transpose(0, 1);  // (3, B S, hidden_size)
    const auto groups = of_text_encoder(*lora, qkv_lora);
    const auto all = lora_add(*lora, groups.b, frozen, lora_low(*lora, groups.a, rows));
    return all.unflatten(1, {x.size(0), x.size(1)}).unbind(0);
  }

  // The last projection of the attention, (B, S, hidden_size) -> the same.
  torch::Tensor project_out(const torch::Tensor& x, LoraStep* lora) const {
    if (lora == nullptr) return out(x);
    return lora_linear(lora, of_text_encoder(*lora, out_lora), out, x.flatten(0, 1))
        .unflatten(0, {x.size(0), x.size(1)});
  }

  // (B, S, hidden_size) -> the same.
  torch::Tensor forward(const torch::Tensor& x, const ClipTextConfig& config, LoraStep* lora) const {
    const auto parts = project(norm1(x), lora);
    const auto mixed = attend(parts[0], parts[1], parts[2], config.num_attention_heads, /*causal=*/true);
    const auto hidden = x + project_out(mixed, lora);
    const auto inner = in_mlp(norm2(hidden));
    return hidden + out_mlp(config.hidden_act == "gelu" ? at::gelu(inner) : inner * at::sigmoid(1.702 * inner));
  }
};

}  // namespace

ClipTextConfig ClipTextConfig::read(const JsonFile& file) {
  // The file of a whole CLIP model keeps the text part's sizes one level deeper; diffusers never writes that.
  if (file.has("architectures") && file.value().at("architectures") != Json({"CLIPTextModel"})) {
    file.fail("\"architectures\" is " + file.value().at("architectures").dump() +
              ", which is not supported (only [\"CLIPTextModel\"] is); use a Stable Diffusion 1.x model");
  }
  ClipTextConfig config;
  config.vocab_size = file.integer("vocab_size");
  config.hidden_size = file.integer("hidden_size");
  config.intermediate_size = file.integer("intermediate_size");
  config.num_hidden_layers = file.integer("num_hidden_layers");
  config.num_attention_heads = file.integer("num_attention_heads");
  config.max_position_embeddings = file.integer("max_position_embeddings", 77);
  config.hidden_act = file.string("hidden_act", "quick_gelu");
  config.layer_norm_eps = file.number("layer_norm_eps", 1e-5);
  if (config.hidden_act != "quick_gelu" && config.hidden_act != "gelu") {
    file.fail("\"hidden_act\" " + config.hidden_act + " is not supported (only quick_gelu and gelu are)");
  }
  if (config.vocab_size < 1 || config.hidden_size < 1 || config.intermediate_size < 1 || config.num_hidden_layers < 1 ||
      config.num_attention_heads < 1 || config.max_position_embeddings < 1 ||
      config.hidden_size % config.num_attention_heads != 0) {
    file.fail("sizes must be positive, and hidden_size a multiple of num_attention_heads");
  }
  return config;
}

struct ClipText::Parts {
  ClipTextConfig config;
  torch::Tensor token_embedding;     // (vocab_size, hidden_size)
  torch::Tensor position_embedding;  // (max_position_embeddings, hidden_size)
  std::vector<EncoderLayer> layers;
  LayerNorm final_norm;
  LoraLayout lora_layout;
};

ClipText::ClipText(const ClipTextConfig& config, const Weights& weights) {
  // transformers 5 leaves this level out when it saves, older files have it.
  const bool has_level = weights.contains("text_model.embeddings.token_embedding.weight");
  const Weights at = has_level ? weights.at("text_model") : weights;
  const int64_t width = config.hidden_size;
  parts_ = std::make_unique<Parts>(
      Parts{config,
            at.take("embeddings.token_embedding.weight", {config.vocab_size, width}),
            at.take("embeddings.position_embedding.weight", {config.max_position_embeddings, width}),
            {},
            LayerNorm::load(at.at("final_layer_norm"), width, config.layer_norm_eps),
            {}});
  LoraLayoutBuilder layout(/*has_text_group=*/false);
  for (size_t i = 0; i < static_cast<size_t>(config.num_hidden_layers); ++i) {
    const auto path = "text_model.encoder.layers." + std::to_string(i);
    parts_->layers.push_back(EncoderLayer::load(at.at("encoder.layers", i), path, config, layout));
  }
  parts_->lora_layout = layout.finish();
}
ClipText::ClipText(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
ClipText::~ClipText() = default;
ClipText::ClipText(ClipText&&) noexcept = default;

const ClipTextConfig& ClipText::config() const { return parts_->config; }
const LoraLayout& ClipText::lora_layout() const { return parts_->lora_layout; }

ClipText ClipText::to(torch::Dtype dtype) const {
  auto parts = std::make_unique<Parts>(*parts_);
  parts->token_embedding = parts->token_embedding.to(dtype);
  parts->position_embedding = parts->position_embedding.to(dtype);
  for (EncoderLayer& layer : parts->layers) layer = layer.to(dtype);
  parts->final_norm = cast(parts->final_norm, dtype);
  return ClipText(std::move(parts));
}

torch::Tensor ClipText::encode(const torch::Tensor& token_ids, LoraStep* lora) const {
  const Parts& p = *parts_;
  if (lora != nullptr && !lora->text_encoder_groups()) lora = nullptr;
  if (token_ids.dim() != 2 || token_ids.size(1) > p.config.max_position_embeddings) {
    throw Error(ErrorCode::kInvalidRequest, "captions may have " + std::to_string(p.config.max_position_embeddings) +
                                                " tokens at most, truncate them");
  }
  if (token_ids.device().is_cpu() && token_ids.numel() > 0 &&
      (token_ids.min().item<int64_t>() < 0 || token_ids.max().item<int64_t>() >= p.config.vocab_size)) {
    throw Error(ErrorCode::kInvalidRequest, "a token id is outside the text encoder's vocabulary of " +
                                                std::to_string(p.config.vocab_size) +
                                                ": tokenizer and text encoder belong to different models");
  }
  auto x = at::embedding(p.token_embedding, token_ids.to(p.token_embedding.device())) +
           p.position_embedding.narrow(0, 0, token_ids.size(1));
  for (const EncoderLayer& layer : p.layers) x = layer.forward(x, p.config, lora);
  return p.final_norm(x).to(torch::kFloat32);
}

}  // namespace brushwork
