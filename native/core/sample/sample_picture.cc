#include "core/sample/sample_picture.h"

#include <cmath>
#include <string>

#include "core/lora/lora_step.h"
#include "core/train/random_streams.h"

namespace brushwork {

namespace {

void check_options(const BaseModel& model, const SampleOptions& options) {
  const auto levels = static_cast<int64_t>(model.unet.config().block_out_channels.size());
  const int64_t multiple_px = model.vae.scale_factor_px() << (levels - 1);
  const auto is_side = [&](int64_t side_px) { return side_px > 0 && side_px % multiple_px == 0; };
  require_drawable(is_side(options.width_px) && is_side(options.height_px),
                   "width and height must be multiples of " + std::to_string(multiple_px) + " px.");
  require_drawable(options.seed >= 0, "seed must not be negative.");
  require_drawable(std::isfinite(options.guidance_scale), "guidance_scale must be a finite number.");
}

// Keys and values of the prompt, with guidance preceded by those of the negative prompt: (1 or 2, S, …).
TextKeysValues encode_prompts(const BaseModel& model, const LoraParameters* lora, const SampleOptions& options,
                              bool guided) {
  const auto token_count = model.text_encoder.config().max_position_embeddings;
  const auto vocab_size = model.text_encoder.config().vocab_size;
  const auto to_ids = [&](const std::vector<int32_t>& token_ids, const char* name) {
    require_drawable(static_cast<int64_t>(token_ids.size()) == token_count,
                     std::string(name) + " must have " + std::to_string(token_count) + " tokens.");
    for (const int32_t id : token_ids) {
      require_drawable(id >= 0 && id < vocab_size, std::string(name) + " has an unknown id.");
    }
    return torch::tensor(token_ids, torch::kInt64).unsqueeze(0);
  };
  auto ids = to_ids(options.token_ids, "the prompt");
  if (guided) ids = torch::cat({to_ids(options.negative_token_ids, "the negative prompt"), ids});
  std::optional<LoraStep> text_lora;
  if (lora != nullptr) text_lora.emplace(*lora, torch::kFloat32);
  return model.unet.prepare_text(
      model.text_encoder.encode(ids.to(model.unet.device()), text_lora ? &*text_lora : nullptr));
}

// Float32 (1, C, H, W), drawn on the CPU so that it is the same on every device.
torch::Tensor initial_noise(const BaseModel& model, const SampleOptions& options) {
  const int64_t factor_px = model.vae.scale_factor_px();
  return torch::randn(
             {1, model.vae.config().latent_channels, options.height_px / factor_px, options.width_px / factor_px},
             make_generator(static_cast<uint64_t>(options.seed)), torch::dtype(torch::kFloat32))
      .to(model.unet.device());
}

}  // namespace

// huggingface/diffusers v0.42.1, src/diffusers/pipelines/stable_diffusion/pipeline_stable_diffusion.py, __call__.
std::optional<torch::Tensor> sample_pixels(const BaseModel& model, const LoraParameters* lora,
                                           const SampleOptions& options, const ShouldStop& should_stop) {
  const torch::NoGradGuard no_grad;
  check_options(model, options);
  const auto scheduler = make_scheduler(options.sampler, model.scheduler, options.step_count);
  const bool guided = options.guidance_scale > 1;
  const auto text = encode_prompts(model, lora, options, guided);

  auto sample = initial_noise(model, options);
  std::optional<LoraStep> step_lora;
  if (lora != nullptr) step_lora.emplace(*lora, model.unet.dtype());
  for (const int64_t timestep : scheduler->timesteps()) {
    if (should_stop && should_stop()) return std::nullopt;
    const auto input = guided ? torch::cat({sample, sample}) : sample;
    const auto timesteps = torch::full({input.size(0)}, timestep, torch::dtype(torch::kInt64).device(sample.device()));
    auto prediction = model.unet.forward(input, timesteps, text, step_lora ? &*step_lora : nullptr);
    if (guided) {
      const auto halves = prediction.chunk(2);
      prediction = halves[0] + options.guidance_scale * (halves[1] - halves[0]);
    }
    sample = scheduler->step(prediction, timestep, sample);
  }
  if (should_stop && should_stop()) return std::nullopt;
  const auto pixels = model.vae.decode(sample / model.vae.config().scaling_factor);
  // As bytes such numbers would make a picture of something.
  require_drawable(torch::isfinite(pixels).all().item<bool>(),
                   "its numbers are not finite. The LoRA is too strong for the model, or the model for its precision.");
  return pixels;
}

std::optional<Picture> sample_picture(const BaseModel& model, const LoraParameters* lora, const SampleOptions& options,
                                      const ShouldStop& should_stop) {
  const auto decoded = sample_pixels(model, lora, options, should_stop);
  if (!decoded) return std::nullopt;
  const auto bytes = ((*decoded)[0].permute({1, 2, 0}) / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch::kUInt8);
  const auto pixels = bytes.to(torch::kCPU).contiguous();
  const auto* begin = pixels.data_ptr<uint8_t>();
  return Picture{options.width_px, options.height_px, std::vector<uint8_t>(begin, begin + pixels.numel())};
}

}  // namespace brushwork
