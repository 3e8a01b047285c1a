#include "core/model_io/random_base_model.h"

#include <cmath>
#include <filesystem>
#include <map>

#include "core/errors.h"
#include "core/model/clip_text.h"
#include "core/model/unet.h"
#include "core/model/vae.h"
#include "core/model/weights.h"
#include "core/model_io/json.h"
#include "core/model_io/safetensors.h"
#include "core/train/random_streams.h"

namespace brushwork {

namespace {

// The configuration files of one preset, as diffusers and transformers write them.
struct Preset {
  Json unet;
  Json vae;
  Json text_encoder;
};

Json clip_config(int64_t width, int64_t layer_count) {
  return {{"architectures", {"CLIPTextModel"}},
          {"attention_dropout", 0.0},
          {"bos_token_id", 1022},
          {"dropout", 0.0},
          {"eos_token_id", 1023},
          {"hidden_act", "quick_gelu"},
          {"hidden_size", width},
          {"intermediate_size", 4 * width},
          {"layer_norm_eps", 1e-5},
          {"max_position_embeddings", 77},
          {"model_type", "clip_text_model"},
          {"num_attention_heads", 4},
          {"num_hidden_layers", layer_count},
          {"pad_token_id", 1023},
          {"projection_dim", width},
          {"vocab_size", 1024}};
}

Json vae_config(const std::vector<int64_t>& widths, int64_t group_count) {
  return {{"_class_name", "AutoencoderKL"},
          {"act_fn", "silu"},
          {"block_out_channels", widths},
          {"down_block_types", std::vector<std::string>(widths.size(), "DownEncoderBlock2D")},
          {"in_channels", 3},
          {"latent_channels", 4},
          {"layers_per_block", 1},
          {"norm_num_groups", group_count},
          {"out_channels", 3},
          {"sample_size", 256},
          {"scaling_factor", 0.18215},
          {"up_block_types", std::vector<std::string>(widths.size(), "UpDecoderBlock2D")}};
}

Json unet_config(const std::vector<int64_t>& widths, int64_t layers_per_block, int64_t head_count, int64_t group_count,
                 int64_t text_width, int64_t sample_size) {
  std::vector<std::string> down(widths.size(), "CrossAttnDownBlock2D"), up(widths.size(), "CrossAttnUpBlock2D");
  down.back() = "DownBlock2D";
  up.front() = "UpBlock2D";
  return {{"_class_name", "UNet2DConditionModel"},
          {"act_fn", "silu"},
          {"attention_head_dim", head_count},
          {"block_out_channels", widths},
          {"center_input_sample", false},
          {"cross_attention_dim", text_width},
          {"down_block_types", down},
          {"downsample_padding", 1},
          {"flip_sin_to_cos", true},
          {"freq_shift", 0},
          {"in_channels", 4},
          {"layers_per_block", layers_per_block},
          {"mid_block_scale_factor", 1},
          {"norm_eps", 1e-5},
          {"norm_num_groups", group_count},
          {"out_channels", 4},
          {"sample_size", sample_size},
          {"up_block_types", up}};
}

Preset find_preset(const std::string& name) {
  if (name == "tiny") {
    return {unet_config({32, 64}, 1, 4, 8, 32, 16), vae_config({8, 16, 16}, 4), clip_config(32, 2)};
  }
  if (name == "small") {
    return {unet_config({32, 64, 96, 96}, 2, 2, 16, 64, 32), vae_config({16, 32, 48, 48}, 8), clip_config(64, 4)};
  }
  throw Error(ErrorCode::kInvalidRequest, "unknown preset \"" + name + "\": choose tiny or small");
}

Json scheduler_config() {
  return {{"_class_name", "DDIMScheduler"}, {"beta_end", 0.012},         {"beta_schedule", "scaled_linear"},
          {"beta_start", 0.00085},          {"clip_sample", false},      {"num_train_timesteps", 1000},
          {"prediction_type", "epsilon"},   {"set_alpha_to_one", false}, {"steps_offset", 1}};
}

Json model_index() {
  return {{"_class_name", "StableDiffusionPipeline"},
          {"feature_extractor", {nullptr, nullptr}},
          {"requires_safety_checker", false},
          {"safety_checker", {nullptr, nullptr}},
          {"scheduler", {"diffusers", "DDIMScheduler"}},
          {"text_encoder", {"transformers", "CLIPTextModel"}},
          {"tokenizer", {"transformers", "CLIPTokenizer"}},
          {"unet", {"diffusers", "UNet2DConditionModel"}},
          {"vae", {"diffusers", "AutoencoderKL"}}};
}

// FNV-1a, 64 bit (http://www.isthe.com/chongo/tech/comp/fnv/).
uint64_t fnv1a64(const std::string& text) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const unsigned char byte : text) hash = (hash ^ byte) * 0x100000001b3;
  return hash;
}

// Draws every weight that a model asks for and keeps it.
class RandomWeights : public WeightSource {
 public:
  RandomWeights(std::string component, int64_t seed)
      : component_(std::move(component)), seed_(static_cast<uint64_t>(seed)) {}

  bool contains(const std::string&) const override { return true; }

  torch::Tensor take(const std::string& key, torch::IntArrayRef shape) override {
    const auto generator = make_generator(mix64(seed_ ^ fnv1a64(component_ + "/" + key)));
    auto drawn = torch::randn(shape, generator, torch::dtype(torch::kFloat32));
    if (shape.size() > 1) {
      // Keeps the variance: the product of all sides but the first is what one output sums over.
      drawn /= std::sqrt(static_cast<double>(drawn[0].numel()));
    } else if (key.ends_with(".weight")) {
      drawn = 1.0 + 0.1 * drawn;  // of a normalisation
    } else {
      drawn *= 0.05;
    }
    tensors_.emplace(key, drawn);
    return drawn;
  }

  const std::map<std::string, torch::Tensor>& tensors() const { return tensors_; }

 private:
  std::string component_;
  uint64_t seed_;
  std::map<std::string, torch::Tensor> tensors_;
};

// Writes config.json and weights of one component: whatever its model asks for when it is built.
template <typename Model, typename Config>
void write_component(const std::string& directory, const std::string& component, const std::string& file_name,
                     const Json& config, int64_t seed) {
  const auto path = directory + "/" + component;
  std::filesystem::create_directories(path);
  write_file_atomically(path + "/config.json", config.dump(2) + "\n");
  RandomWeights weights(component, seed);
  const Model model(Config::read(JsonFile(path + "/config.json")), Weights(weights, torch::kCPU, torch::kFloat32));
  write_safetensors(path + "/" + file_name, weights.tensors(), {{"format", "pt"}});
}

}  // namespace

void write_random_base_model(const std::string& directory, const std::string& preset, int64_t seed) {
  const Preset files = find_preset(preset);
  const torch::NoGradGuard no_grad;
  try {
    std::filesystem::create_directories(directory + "/scheduler");
    write_component<UNet, UNetConfig>(directory, "unet", "diffusion_pytorch_model.safetensors", files.unet, seed);
    write_component<Vae, VaeConfig>(directory, "vae", "diffusion_pytorch_model.safetensors", files.vae, seed);
    write_component<ClipText, ClipTextConfig>(directory, "text_encoder", "model.safetensors", files.text_encoder, seed);
    write_file_atomically(directory + "/scheduler/scheduler_config.json", scheduler_config().dump(2) + "\n");
    write_file_atomically(directory + "/model_index.json", model_index().dump(2) + "\n");
  } catch (const std::filesystem::filesystem_error& error) {
    throw Error(ErrorCode::kInternal, std::string("can't write the model: ") + error.what());
  }
}

}  // namespace brushwork
