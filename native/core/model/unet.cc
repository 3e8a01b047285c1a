#include "core/model/unet.h"

#include <algorithm>
#include <cmath>

#include "core/errors.h"
#include "core/model/attention.h"
#include "core/model/gradient_checkpointing.h"
#include "core/model/resnet.h"
#include "core/model_io/json.h"

// Structure: https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/unets/unet_2d_condition.py and
// unet_2d_blocks.py of the same commit.

namespace brushwork {

namespace {

// Options of UNet2DConditionModel that we implement in one setting only.
void refuse_other_architectures(const JsonFile& file) {
  const std::vector<std::pair<const char*, Json>> required = {
      {"_class_name", "UNet2DConditionModel"},
      {"act_fn", "silu"},
      {"addition_embed_type", nullptr},
      {"attention_type", "default"},
      {"center_input_sample", false},
      {"class_embed_type", nullptr},
      {"class_embeddings_concat", false},
      {"conv_in_kernel", 3},
      {"conv_out_kernel", 3},
      {"cross_attention_norm", nullptr},
      {"downsample_padding", 1},
      {"dropout", 0.0},
      {"dual_cross_attention", false},
      {"encoder_hid_dim", nullptr},
      {"encoder_hid_dim_type", nullptr},
      {"mid_block_only_cross_attention", false},
      {"mid_block_scale_factor", 1},
      {"mid_block_type", "UNetMidBlock2DCrossAttn"},
      {"num_attention_heads", nullptr},
      {"num_class_embeds", nullptr},
      {"only_cross_attention", false},
      {"resnet_out_scale_factor", 1.0},
      {"resnet_skip_time_act", false},
      {"resnet_time_scale_shift", "default"},
      {"reverse_transformer_layers_per_block", nullptr},
      {"time_cond_proj_dim", nullptr},
      {"time_embedding_act_fn", nullptr},
      {"time_embedding_dim", nullptr},
      {"time_embedding_type", "positional"},
      {"timestep_post_act", nullptr},
  };
  for (const auto& [key, value] : required) {
    if (file.has(key) && file.value().at(key) != value) {
      file.fail(std::string("\"") + key + "\" is " + file.value().at(key).dump() + ", which is not supported (only " +
                value.dump() + " is); use a Stable Diffusion 1.x model");
    }
  }
}

}  // namespace

UNetConfig UNetConfig::read(const JsonFile& file) {
  refuse_other_architectures(file);
  UNetConfig config;
  config.in_channels = file.integer("in_channels", 4);
  config.out_channels = file.integer("out_channels", 4);
  config.sample_size = file.integer("sample_size", 0);
  config.block_out_channels = file.integers("block_out_channels");
  config.down_block_types = file.strings("down_block_types");
  config.up_block_types = file.strings("up_block_types");
  config.layers_per_block = file.integer("layers_per_block", 2);
  config.cross_attention_dim = file.integer("cross_attention_dim", 1280);
  config.norm_num_groups = file.integer("norm_num_groups", 32);
  config.norm_eps = file.number("norm_eps", 1e-5);
  config.use_linear_projection = file.boolean("use_linear_projection", false);
  config.flip_sin_to_cos = file.boolean("flip_sin_to_cos", true);
  config.freq_shift = file.integer("freq_shift", 0);

  const size_t levels = config.block_out_channels.size();
  const auto per_level = [&](const std::string& key, int64_t fallback) {
    if (file.has(key) && file.value().at(key).is_array()) return file.integers(key);
    return std::vector<int64_t>(levels, file.integer(key, fallback));
  };
  config.head_counts = per_level("attention_head_dim", 8);
  config.transformer_layers_per_block = per_level("transformer_layers_per_block", 1);

  if (levels == 0 || config.down_block_types.size() != levels || config.up_block_types.size() != levels ||
      config.head_counts.size() != levels || config.transformer_layers_per_block.size() != levels) {
    file.fail("block_out_channels, down_block_types, up_block_types and the lists per level differ in length");
  }
  for (const auto& type : config.down_block_types) {
    if (type != "CrossAttnDownBlock2D" && type != "DownBlock2D") {
      file.fail("the block type " + type + " in \"down_block_types\" is not supported");
    }
  }
  for (const auto& type : config.up_block_types) {
    if (type != "CrossAttnUpBlock2D" && type != "UpBlock2D") {
      file.fail("the block type " + type + " in \"up_block_types\" is not supported");
    }
  }
  if (config.norm_num_groups < 1 || config.layers_per_block < 1 || config.in_channels < 1 || config.out_channels < 1 ||
      config.cross_attention_dim < 1) {
    file.fail("sizes must be positive");
  }
  for (size_t i = 0; i < levels; ++i) {
    const int64_t channels = config.block_out_channels[i];
    if (channels < 1 || channels % config.norm_num_groups != 0 || config.head_counts[i] < 1 ||
        channels % config.head_counts[i] != 0 || config.transformer_layers_per_block[i] < 1) {
      file.fail("\"block_out_channels\" " + std::to_string(channels) +
                " must be a multiple of norm_num_groups and of the number of heads (\"attention_head_dim\")");
    }
  }
  if (config.block_out_channels[0] % 2 != 0) file.fail("the first of \"block_out_channels\" must be even");
  return config;
}

TextKeysValues TextKeysValues::select(const torch::Tensor& indices) const {
  return {states.index_select(0, indices), keys_values.index_select(0, indices)};
}

namespace {

// One level on the way down or up, or the middle: resnets, each followed by a transformer where the level has
// attention.
struct Level {
  std::vector<ResnetBlock> resnets;
  std::vector<Transformer2d> transformers;
  std::optional<Downsample> downsample;
  std::optional<Upsample> upsample;
};

}  // namespace

struct UNet::Parts {
  UNetConfig config;
  torch::Device device;
  torch::Dtype dtype;
  int64_t parameter_count;
  Conv2d conv_in;
  torch::Tensor frequencies;  // float32 (first width / 2)
  Linear time_in;
  Linear time_out;
  TimeProjections time_projections;
  TextProjections text_projections;
  std::vector<Level> down;
  Level mid;
  std::vector<Level> up;
  GroupNorm norm_out;
  Conv2d conv_out;
  LoraLayout lora_layout;

  Parts(const UNetConfig& config, const Weights& weights);
  torch::Tensor embed(const torch::Tensor& timesteps) const;
};

UNet::Parts::Parts(const UNetConfig& unet_config, const Weights& weights)
    : config(unet_config), device(weights.device()), dtype(weights.dtype()) {
  const auto& widths = config.block_out_channels;
  const size_t levels = widths.size();
  const int64_t time_channels = 4 * widths.front();
  LoraLayoutBuilder layout;

  const auto add_resnet = [&](Level& level, const Weights& at, int64_t in, int64_t out) {
    const ResnetBlock::Shape shape{in, out, config.norm_num_groups, config.norm_eps, time_channels};
    level.resnets.emplace_back(at.at("resnets", level.resnets.size()), shape, &time_projections);
  };
  const auto add_transformer = [&](Level& level, const Weights& at, size_t level_index) {
    const AttentionShape shape{config.head_counts[level_index], config.cross_attention_dim, config.norm_num_groups,
                               config.transformer_layers_per_block[level_index], config.use_linear_projection};
    level.transformers.emplace_back(at.at("attentions", level.transformers.size()), widths[level_index], shape, layout,
                                    text_projections);
  };

  conv_in = Conv2d::load(weights.at("conv_in"), config.in_channels, widths[0], 3);
  time_in = Linear::load(weights.at("time_embedding.linear_1"), widths[0], time_channels);
  time_out = Linear::load(weights.at("time_embedding.linear_2"), time_channels, time_channels);

  for (size_t i = 0; i < levels; ++i) {
    const Weights at = weights.at("down_blocks", i);
    Level level;
    for (int64_t j = 0; j < config.layers_per_block; ++j) {
      add_resnet(level, at, j == 0 && i > 0 ? widths[i - 1] : widths[i], widths[i]);
      if (config.down_block_types[i] == "CrossAttnDownBlock2D") add_transformer(level, at, i);
    }
    if (i + 1 < levels) level.downsample.emplace(at.at("downsamplers", 0), widths[i], /*pad_all_round=*/true);
    down.push_back(std::move(level));
  }

  const Weights mid_at = weights.at("mid_block");
  add_resnet(mid, mid_at, widths.back(), widths.back());
  add_transformer(mid, mid_at, levels - 1);
  add_resnet(mid, mid_at, widths.back(), widths.back());

  for (size_t i = 0; i < levels; ++i) {
    const Weights at = weights.at("up_blocks", i);
    const size_t mirrored = levels - 1 - i;  // the level on the way down that this one continues
    const int64_t width = widths[mirrored];
    const int64_t skip_below = mirrored > 0 ? widths[mirrored - 1] : widths[0];
    Level level;
    for (int64_t j = 0; j <= config.layers_per_block; ++j) {
      const int64_t skip = j == config.layers_per_block ? skip_below : width;
      const int64_t previous = j == 0 && i > 0 ? widths[mirrored + 1] : width;
      add_resnet(level, at, previous + skip, width);
      if (config.up_block_types[i] == "CrossAttnUpBlock2D") add_transformer(level, at, mirrored);
    }
    if (i + 1 < levels) level.upsample.emplace(at.at("upsamplers", 0), width);
    up.push_back(std::move(level));
  }

  norm_out = GroupNorm::load(weights.at("conv_norm_out"), widths[0], config.norm_num_groups, config.norm_eps);
  conv_out = Conv2d::load(weights.at("conv_out"), widths[0], config.out_channels, 3);
  time_projections.finish();
  text_projections.finish();
  lora_layout = layout.finish();
  parameter_count = weights.taken_count();

  // Sinusoidal embedding, unet_2d_condition.py get_time_embed and embeddings.py get_timestep_embedding.
  const int64_t half = widths[0] / 2;
  frequencies = at::exp(torch::arange(half, torch::kFloat32) *
                        (-std::log(10000.0) / static_cast<double>(half - config.freq_shift)))
                    .to(device);
}

torch::Tensor UNet::Parts::embed(const torch::Tensor& timesteps) const {
  const auto angles = timesteps.to(torch::kFloat32).unsqueeze(1) * frequencies;
  const auto waves = config.flip_sin_to_cos ? at::cat({at::cos(angles), at::sin(angles)}, 1)
                                            : at::cat({at::sin(angles), at::cos(angles)}, 1);
  return time_out(at::silu(time_in(waves.to(dtype))));
}

namespace {

// Runs a level's blocks: a resnet each, and the transformer after it where there is one.
struct BlockRunner {
  const torch::Tensor& time;
  const TextInput& text;
  LoraStep* lora;
  bool gradient_checkpointing;

  // Block `index` of `level` on `parts`: the result so far, and on the way up what it is joined with.
  torch::Tensor run(const Level& level, size_t index, const std::vector<torch::Tensor>& parts) const {
    const ResnetBlock& resnet = level.resnets[index];
    const Transformer2d* transformer = index < level.transformers.size() ? &level.transformers[index] : nullptr;
    const size_t part_count = parts.size();
    const auto text_end = static_cast<std::ptrdiff_t>(part_count + text.keys_values.size());
    const auto forward = [&resnet, transformer, part_count, text_end, time = time](
                             const std::vector<torch::Tensor>& inputs, LoraStep* lora) {
      // A node of the block's own, so that gradients are summed in the same order with and without checkpointing.
      const auto x = part_count == 1 ? inputs[0].alias() : at::cat({inputs[0], inputs[1]}, 1);
      const auto hidden = resnet.forward(x, time);
      if (transformer == nullptr) return hidden;
      const auto keys_values = inputs.begin() + static_cast<std::ptrdiff_t>(part_count);
      const auto lora_low = inputs.begin() + text_end;
      return transformer->forward(hidden, {{keys_values, lora_low}, {lora_low, inputs.end()}}, lora);
    };
    auto inputs = parts;
    if (transformer != nullptr) {
      inputs.insert(inputs.end(), text.keys_values.begin(), text.keys_values.end());
      inputs.insert(inputs.end(), text.lora_low.begin(), text.lora_low.end());
    }
    if (lora == nullptr || !gradient_checkpointing) return forward(inputs, lora);
    return checkpointed(
        [forward](const std::vector<torch::Tensor>& kept, LoraStep& step) { return forward(kept, &step); }, inputs,
        *lora);
  }
};

}  // namespace

UNet::UNet(const UNetConfig& config, const Weights& weights) : parts_(std::make_unique<Parts>(config, weights)) {}
UNet::~UNet() = default;
UNet::UNet(UNet&&) noexcept = default;

const UNetConfig& UNet::config() const { return parts_->config; }
torch::Device UNet::device() const { return parts_->device; }
torch::Dtype UNet::dtype() const { return parts_->dtype; }
int64_t UNet::parameter_count() const { return parts_->parameter_count; }
const LoraLayout& UNet::lora_layout() const { return parts_->lora_layout; }

TextKeysValues UNet::prepare_text(const torch::Tensor& states) const {
  const auto cast = states.to(parts_->dtype);
  return {cast, parts_->text_projections.project(cast)};
}

torch::Tensor UNet::forward(const torch::Tensor& sample, const torch::Tensor& timesteps, const TextKeysValues& text,
                            LoraStep* lora, bool gradient_checkpointing) const {
  const Parts& p = *parts_;
  const int64_t multiple = int64_t{1} << (p.down.size() - 1);
  if (sample.size(2) % multiple != 0 || sample.size(3) % multiple != 0) {
    throw Error(ErrorCode::kInvalidRequest, "latent sides must be multiples of " + std::to_string(multiple) +
                                                ", but are " + std::to_string(sample.size(3)) + " x " +
                                                std::to_string(sample.size(2)) + ": choose another resolution");
  }

  // 1. What all blocks read: the time and the text.
  const auto time = p.time_projections.project(p.embed(timesteps));
  const TextInput text_input = p.text_projections.prepare(text.states, text.keys_values, lora);

  const BlockRunner blocks{time, text_input, lora, gradient_checkpointing};

  // 2. Down, keeping every intermediate result for the way up.
  auto x = p.conv_in(sample.to(p.dtype).contiguous(at::MemoryFormat::ChannelsLast));
  std::vector<torch::Tensor> skips = {x};
  for (const Level& level : p.down) {
    for (size_t j = 0; j < level.resnets.size(); ++j) {
      x = blocks.run(level, j, {x});
      skips.push_back(x);
    }
    if (level.downsample) skips.push_back(x = level.downsample->forward(x));
  }

  // 3. Middle.
  x = blocks.run(p.mid, 0, {x});
  x = blocks.run(p.mid, 1, {x});

  // 4. Up.
  for (const Level& level : p.up) {
    for (size_t j = 0; j < level.resnets.size(); ++j) {
      x = blocks.run(level, j, {x, skips.back()});
      skips.pop_back();
    }
    if (level.upsample) x = level.upsample->forward(x);
  }
  return p.conv_out(at::silu(p.norm_out(x))).to(torch::kFloat32);
}

}  // namespace brushwork
