#include "core/sample/ddim.h"

#include <cmath>
#include <optional>
#include <string>

#include "core/errors.h"
#include "core/train/noise_schedule.h"
#include "core/train/random_streams.h"

namespace brushwork {

namespace {

constexpr int64_t kStepsOffset = 1;

void require(bool valid, const std::string& rule) {
  if (!valid) throw Error(ErrorCode::kInvalidRequest, "The picture can't be drawn: " + rule);
}

void check_options(const BaseModel& model, const SampleOptions& options) {
  const auto levels = static_cast<int64_t>(model.unet.config().block_out_channels.size());
  const int64_t multiple_px = model.vae.scale_factor_px() << (levels - 1);
  const auto is_side = [&](int64_t side_px) { return side_px > 0 && side_px % multiple_px == 0; };
  require(is_side(options.width_px) && is_side(options.height_px),
          "width and height must be multiples of " + std::to_string(multiple_px) + " px.");
  require(options.seed >= 0, "seed must not be negative.");
  require(std::isfinite(options.guidance_scale), "guidance_scale must be a finite number.");
}

// Keys and values of the prompt, with guidance preceded by those of the negative prompt: (1 or 2, S, …).
TextKeysValues encode_prompts(const BaseModel& model, const LoraParameters* lora, const SampleOptions& options,
                              bool guided) {
  const auto token_count = model.text_encoder.config().max_position_embeddings;
  const auto vocab_size = model.text_encoder.config().vocab_size;
  const auto to_ids = [&](const std::vector<int32_t>& token_ids, const char* name) {
    require(static_cast<int64_t>(token_ids.size()) == token_count,
            std::string(name) + " must have " + std::to_string(token_count) + " tokens.");
    for (const int32_t id : token_ids) require(id >= 0 && id < vocab_size, std::string(name) + " has an unknown id.");
    return torch::tensor(token_ids, torch::kInt64).unsqueeze(0);
  };
  auto ids = to_ids(options.token_ids, "the prompt");
  if (guided) ids = torch::cat({to_ids(options.negative_token_ids, "the negative prompt"), ids});
  std::optional<LoraStep> text_lora;
  if (lora != nullptr) text_lora.emplace(*lora, torch::kFloat32);
  return model.unet.prepare_text(
      model.text_encoder.encode(ids.to(model.unet.device()), text_lora ? &*text_lora : nullptr));
}

Picture to_picture(const torch::Tensor& decoded, const SampleOptions& options) {
  const auto bytes = (decoded[0].permute({1, 2, 0}) / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch::kUInt8);
  const auto pixels = bytes.to(torch::kCPU).contiguous();
  const auto* begin = pixels.data_ptr<uint8_t>();
  return {options.width_px, options.height_px, std::vector<uint8_t>(begin, begin + pixels.numel())};
}

}  // namespace

// huggingface/diffusers v0.42.1, src/diffusers/schedulers/scheduling_ddim.py, set_timesteps ("leading").
DdimScheduler::DdimScheduler(const SchedulerConfig& config, int64_t step_count) : config_(config) {
  require(step_count >= 1 && step_count < config.num_train_timesteps,
          "step_count must be 1 to " + std::to_string(config.num_train_timesteps - 1) + ".");
  step_ratio_ = config.num_train_timesteps / step_count;
  for (int64_t i = step_count - 1; i >= 0; --i) timesteps_.push_back(i * step_ratio_ + kStepsOffset);
  const auto table = NoiseSchedule(config, torch::kCPU).alphas_cumprod();
  alphas_cumprod_.assign(table.data_ptr<float>(), table.data_ptr<float>() + table.numel());
}

// The same file, step with eta 0; formula (12) of arXiv:2010.02502.
torch::Tensor DdimScheduler::step(const torch::Tensor& prediction, int64_t timestep,
                                  const torch::Tensor& sample) const {
  // 1. ᾱ here and one step further; behind the last step stands ᾱ_0, not 1.
  const int64_t previous = timestep - step_ratio_;
  const float alpha = alphas_cumprod_.at(static_cast<size_t>(timestep));
  const float alpha_previous = alphas_cumprod_.at(previous >= 0 ? static_cast<size_t>(previous) : 0);
  const float sqrt_alpha = std::sqrt(alpha), sqrt_beta = std::sqrt(1 - alpha);
  // 2. The clean sample and the noise that the prediction implies.
  const bool is_epsilon = config_.prediction_type == PredictionType::kEpsilon;
  const auto original =
      is_epsilon ? (sample - sqrt_beta * prediction) / sqrt_alpha : sqrt_alpha * sample - sqrt_beta * prediction;
  const auto epsilon = is_epsilon ? prediction : sqrt_alpha * prediction + sqrt_beta * sample;
  // 3. The same pair at the smaller noise.
  return std::sqrt(alpha_previous) * original + std::sqrt(1 - alpha_previous) * epsilon;
}

// huggingface/diffusers v0.42.1, src/diffusers/pipelines/stable_diffusion/pipeline_stable_diffusion.py, __call__.
Picture sample_picture(const BaseModel& model, const LoraParameters* lora, const SampleOptions& options,
                       const ShouldStop& should_stop) {
  const torch::NoGradGuard no_grad;
  check_options(model, options);
  const DdimScheduler scheduler(model.scheduler, options.step_count);
  const bool guided = options.guidance_scale > 1;
  const auto text = encode_prompts(model, lora, options, guided);

  const auto generator = make_generator(static_cast<uint64_t>(options.seed));
  const int64_t factor_px = model.vae.scale_factor_px();
  auto sample =
      torch::randn({1, model.vae.config().latent_channels, options.height_px / factor_px, options.width_px / factor_px},
                   generator, torch::dtype(torch::kFloat32))
          .to(model.unet.device());
  std::optional<LoraStep> step_lora;
  for (const int64_t timestep : scheduler.timesteps()) {
    if (should_stop && should_stop()) throw Error(ErrorCode::kInternal, "Drawing the picture was stopped.");
    if (lora != nullptr) step_lora.emplace(*lora, model.unet.dtype());
    const auto input = guided ? torch::cat({sample, sample}) : sample;
    const auto timesteps = torch::full({input.size(0)}, timestep, torch::dtype(torch::kInt64).device(sample.device()));
    auto prediction = model.unet.forward(input, timesteps, text, step_lora ? &*step_lora : nullptr);
    if (guided) {
      const auto halves = prediction.chunk(2);
      prediction = halves[0] + options.guidance_scale * (halves[1] - halves[0]);
    }
    sample = scheduler.step(prediction, timestep, sample);
  }
  return to_picture(model.vae.decode(sample / model.vae.config().scaling_factor), options);
}

}  // namespace brushwork
