#include "core/model/vae.h"

#include <optional>
#include <utility>

#include "core/errors.h"
#include "core/model/resnet.h"
#include "core/model_io/json.h"

// Structure: https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/autoencoders/vae.py (Encoder,
// Decoder, DiagonalGaussianDistribution), autoencoder_kl.py and unets/unet_2d_blocks.py (UNetMidBlock2D) of the same
// commit.

namespace brushwork {

namespace {

constexpr double kNormEps = 1e-6;

ResnetBlock load_resnet(const Weights& weights, const VaeConfig& config, int64_t in, int64_t out) {
  return ResnetBlock(weights, {in, out, config.norm_num_groups, kNormEps, /*time_channels=*/0}, nullptr);
}

// Attention of pixels to themselves, one head, added to its input.
class VaeAttention {
 public:
  VaeAttention(const Weights& weights, int64_t channels, int64_t group_count)
      : norm_(GroupNorm::load(weights.at("group_norm"), channels, group_count, kNormEps)),
        q_(load(weights, channels, "to_q", "query")),
        k_(load(weights, channels, "to_k", "key")),
        v_(load(weights, channels, "to_v", "value")),
        out_(load(weights, channels, "to_out.0", "proj_attn")) {}

  torch::Tensor forward(const torch::Tensor& x) const {
    const auto rows = image_to_rows(norm_(x));
    const auto tokens = [&](const Linear& layer) {
      return layer(rows).unflatten(0, {x.size(0), x.size(2) * x.size(3)});
    };
    const auto mixed = attend(tokens(q_), tokens(k_), tokens(v_), /*head_count=*/1).flatten(0, 1);
    return rows_to_image(out_(mixed), x) + x;
  }

 private:
  // Models saved before diffusers 0.18 have the second set of names.
  static Linear load(const Weights& weights, int64_t channels, const char* name, const char* old_name) {
    const bool is_old =
        !weights.contains(std::string(name) + ".weight") && weights.contains(std::string(old_name) + ".weight");
    return Linear::load(weights.at(is_old ? old_name : name), channels, channels);
  }

  GroupNorm norm_;
  Linear q_;
  Linear k_;
  Linear v_;
  Linear out_;
};

struct MidBlock {
  ResnetBlock first;
  std::optional<VaeAttention> attention;
  ResnetBlock second;

  static MidBlock load(const Weights& weights, const VaeConfig& config) {
    const int64_t width = config.block_out_channels.back();
    std::optional<VaeAttention> attention;
    if (config.mid_block_add_attention) {
      attention.emplace(weights.at("attentions", 0), width, config.norm_num_groups);
    }
    return {load_resnet(weights.at("resnets", 0), config, width, width), std::move(attention),
            load_resnet(weights.at("resnets", 1), config, width, width)};
  }

  torch::Tensor forward(const torch::Tensor& x) const {
    const auto hidden = first.forward(x, {});
    return second.forward(attention ? attention->forward(hidden) : hidden, {});
  }
};

struct Level {
  std::vector<ResnetBlock> resnets;
  std::optional<Downsample> downsample;
  std::optional<Upsample> upsample;

  torch::Tensor forward(torch::Tensor x) const {
    for (const ResnetBlock& resnet : resnets) x = resnet.forward(x, {});
    if (downsample) x = downsample->forward(x);
    if (upsample) x = upsample->forward(x);
    return x;
  }
};

struct Encoder {
  Conv2d conv_in;
  std::vector<Level> levels;
  MidBlock mid;
  GroupNorm norm_out;
  Conv2d conv_out;

  static Encoder load(const Weights& weights, const VaeConfig& config) {
    const auto& widths = config.block_out_channels;
    std::vector<Level> levels;
    for (size_t i = 0; i < widths.size(); ++i) {
      const Weights at = weights.at("down_blocks", i);
      Level level;
      for (size_t j = 0; j < static_cast<size_t>(config.layers_per_block); ++j) {
        level.resnets.push_back(
            load_resnet(at.at("resnets", j), config, j == 0 && i > 0 ? widths[i - 1] : widths[i], widths[i]));
      }
      if (i + 1 < widths.size()) level.downsample.emplace(at.at("downsamplers", 0), widths[i], /*pad_all_round=*/false);
      levels.push_back(std::move(level));
    }
    return {Conv2d::load(weights.at("conv_in"), config.in_channels, widths.front(), 3), std::move(levels),
            MidBlock::load(weights.at("mid_block"), config),
            GroupNorm::load(weights.at("conv_norm_out"), widths.back(), config.norm_num_groups, kNormEps),
            Conv2d::load(weights.at("conv_out"), widths.back(), 2 * config.latent_channels, 3)};
  }

  torch::Tensor forward(const torch::Tensor& pixels) const {
    auto x = conv_in(pixels.contiguous(at::MemoryFormat::ChannelsLast));
    for (const Level& level : levels) x = level.forward(x);
    return conv_out(at::silu(norm_out(mid.forward(x))));
  }
};

struct Decoder {
  Conv2d conv_in;
  MidBlock mid;
  std::vector<Level> levels;
  GroupNorm norm_out;
  Conv2d conv_out;

  static Decoder load(const Weights& weights, const VaeConfig& config) {
    const std::vector<int64_t> widths(config.block_out_channels.rbegin(), config.block_out_channels.rend());
    std::vector<Level> levels;
    for (size_t i = 0; i < widths.size(); ++i) {
      const Weights at = weights.at("up_blocks", i);
      Level level;
      for (size_t j = 0; j <= static_cast<size_t>(config.layers_per_block); ++j) {
        level.resnets.push_back(
            load_resnet(at.at("resnets", j), config, j == 0 && i > 0 ? widths[i - 1] : widths[i], widths[i]));
      }
      if (i + 1 < widths.size()) level.upsample.emplace(at.at("upsamplers", 0), widths[i]);
      levels.push_back(std::move(level));
    }
    return {Conv2d::load(weights.at("conv_in"), config.latent_channels, widths.front(), 3),
            MidBlock::load(weights.at("mid_block"), config), std::move(levels),
            GroupNorm::load(weights.at("conv_norm_out"), widths.back(), config.norm_num_groups, kNormEps),
            Conv2d::load(weights.at("conv_out"), widths.back(), config.out_channels, 3)};
  }

  torch::Tensor forward(const torch::Tensor& latents) const {
    auto x = mid.forward(conv_in(latents.contiguous(at::MemoryFormat::ChannelsLast)));
    for (const Level& level : levels) x = level.forward(x);
    return conv_out(at::silu(norm_out(x)));
  }
};

}  // namespace

VaeConfig VaeConfig::read(const JsonFile& file) {
  const auto require = [&](const std::string& key, const Json& value) {
    if (file.has(key) && file.value().at(key) != value) {
      file.fail("\"" + key + "\" is " + file.value().at(key).dump() + ", which is not supported (only " + value.dump() +
                " is); use the VAE of a Stable Diffusion 1.x model");
    }
  };
  require("_class_name", "AutoencoderKL");
  require("act_fn", "silu");
  require("shift_factor", nullptr);
  require("latents_mean", nullptr);
  require("latents_std", nullptr);

  VaeConfig config;
  config.in_channels = file.integer("in_channels", 3);
  config.out_channels = file.integer("out_channels", 3);
  config.latent_channels = file.integer("latent_channels", 4);
  config.block_out_channels = file.integers("block_out_channels");
  config.layers_per_block = file.integer("layers_per_block", 1);
  config.norm_num_groups = file.integer("norm_num_groups", 32);
  // Models older than the key have the value that diffusers assumes, autoencoder_kl.py.
  config.scaling_factor = file.number("scaling_factor", 0.18215);
  config.use_quant_conv = file.boolean("use_quant_conv", true);
  config.use_post_quant_conv = file.boolean("use_post_quant_conv", true);
  config.mid_block_add_attention = file.boolean("mid_block_add_attention", true);

  const size_t levels = config.block_out_channels.size();
  require("down_block_types", Json(std::vector<std::string>(levels, "DownEncoderBlock2D")));
  require("up_block_types", Json(std::vector<std::string>(levels, "UpDecoderBlock2D")));
  if (levels == 0 || config.layers_per_block < 1 || config.norm_num_groups < 1 || config.latent_channels < 1 ||
      config.in_channels != 3 || config.out_channels != 3 || !(config.scaling_factor > 0)) {
    file.fail("sizes must be positive and images must have 3 channels");
  }
  for (const int64_t channels : config.block_out_channels) {
    if (channels < 1 || channels % config.norm_num_groups != 0) {
      file.fail("\"block_out_channels\" " + std::to_string(channels) + " must be a multiple of norm_num_groups");
    }
  }
  return config;
}

struct Vae::Parts {
  VaeConfig config;
  Encoder encoder;
  Decoder decoder;
  std::optional<Conv2d> quant_conv;
  std::optional<Conv2d> post_quant_conv;
  torch::Dtype dtype;
};

Vae::Vae(const VaeConfig& config, const Weights& weights) {
  const int64_t latent = config.latent_channels;
  parts_ = std::make_unique<Parts>(Parts{config,
                                         Encoder::load(weights.at("encoder"), config),
                                         Decoder::load(weights.at("decoder"), config),
                                         {},
                                         {},
                                         weights.dtype()});
  if (config.use_quant_conv) parts_->quant_conv = Conv2d::load(weights.at("quant_conv"), 2 * latent, 2 * latent, 1);
  if (config.use_post_quant_conv) {
    parts_->post_quant_conv = Conv2d::load(weights.at("post_quant_conv"), latent, latent, 1);
  }
}
Vae::~Vae() = default;
Vae::Vae(Vae&&) noexcept = default;

const VaeConfig& Vae::config() const { return parts_->config; }
int64_t Vae::scale_factor_px() const { return int64_t{1} << (parts_->config.block_out_channels.size() - 1); }

LatentPosterior Vae::encode(const torch::Tensor& pixels) const {
  const torch::NoGradGuard no_grad;
  const int64_t factor = scale_factor_px();
  if (pixels.dim() != 4 || pixels.size(1) != 3 || pixels.size(2) % factor != 0 || pixels.size(3) % factor != 0) {
    throw Error(ErrorCode::kImageInvalid,
                "the VAE takes RGB images with sides that are multiples of " + std::to_string(factor) + " px");
  }
  auto moments = parts_->encoder.forward(pixels.to(parts_->dtype));
  if (parts_->quant_conv) moments = (*parts_->quant_conv)(moments);
  const auto halves = moments.to(torch::kFloat32).contiguous().chunk(2, 1);
  return {halves[0].contiguous(), at::exp(0.5 * at::clamp(halves[1], -30.0, 20.0)).contiguous()};
}

torch::Tensor Vae::decode(const torch::Tensor& latents) const {
  const torch::NoGradGuard no_grad;
  auto x = latents.to(parts_->dtype);
  if (parts_->post_quant_conv) x = (*parts_->post_quant_conv)(x);
  return parts_->decoder.forward(x).to(torch::kFloat32).contiguous();
}

}  // namespace brushwork
