#include "core/train/validation.h"

#include <utility>

#include "core/errors.h"
#include "core/train/random_streams.h"

namespace brushwork {

std::vector<int64_t> validation_timesteps(int64_t num_train_timesteps, int64_t count) {
  std::vector<int64_t> timesteps;
  for (int64_t i = 0; i < count; ++i) timesteps.push_back((2 * i + 1) * num_train_timesteps / (2 * count));
  return timesteps;
}

Validation::Validation(const BaseModel& model, const TrainingConfig& config, std::vector<TrainingImage> images,
                       const ClipText* trained_text_encoder, const ShouldStop& should_stop)
    : model_(model),
      seed_(static_cast<uint64_t>(config.seed)),
      batch_size_(config.batch_size),
      schedule_(model.scheduler, model.unet.device()),
      trained_text_encoder_(trained_text_encoder) {
  if (config.seed < 0 || config.batch_size < 1) {
    throw Error(ErrorCode::kInvalidRequest, "Validation needs a seed of at least 0 and a batch_size of at least 1.");
  }
  EncodeOptions options;
  options.train_text_encoder = trained_text_encoder != nullptr;
  data_ = encode_training_data(model, std::move(images), options, should_stop);
  const auto timesteps = validation_timesteps(model.scheduler.num_train_timesteps, kTimestepCount);
  timesteps_ = torch::tensor(timesteps, torch::kInt64).to(model.unet.device());
}

std::optional<double> Validation::loss(const LoraParameters& lora, const ShouldStop& should_stop) const {
  const torch::NoGradGuard no_grad;
  double sum = 0;
  for (int64_t image = 0; image < image_count(); ++image) {
    const auto samples = samples_of(image);
    for (int64_t first = 0; first < kTimestepCount; first += batch_size_) {
      if (should_stop && should_stop()) return std::nullopt;
      const auto part = [&](const torch::Tensor& all) { return all.slice(0, first, first + batch_size_); };
      const auto timesteps = part(timesteps_);
      LoraStep step(lora, model_.unet.dtype());
      const auto text = text_of(image, timesteps.size(0), step);
      const auto prediction = model_.unet.forward(part(samples.noisy), timesteps, text, &step);
      const auto of_each = torch::mse_loss(prediction, part(samples.target), at::Reduction::None).mean({1, 2, 3});
      sum += of_each.to(torch::kFloat64).sum().item<double>();
    }
  }
  return sum / static_cast<double>(image_count() * kTimestepCount);
}

Validation::Samples Validation::samples_of(int64_t image) const {
  const auto index = static_cast<size_t>(image);
  const auto& size = data_.sizes[static_cast<size_t>(data_.size_of_image[index])];
  const auto mean = size.latent_means.narrow(0, data_.row_of_image[index], 1);
  const auto std = size.latent_stds.narrow(0, data_.row_of_image[index], 1);
  const auto draw = [&](RandomStream stream) {
    auto shape = mean.sizes().vec();
    shape[0] = kTimestepCount;
    return draw_normal(shape, {seed_, stream, static_cast<uint64_t>(image)}).to(model_.unet.device());
  };
  const auto latents = (mean + std * draw(RandomStream::kValidationLatentSample)) * model_.vae.config().scaling_factor;
  const auto noise = draw(RandomStream::kValidationNoise);
  return {schedule_.add_noise(latents, noise, timesteps_), schedule_.target(latents, noise, timesteps_)};
}

TextKeysValues Validation::text_of(int64_t image, int64_t count, LoraStep& step) const {
  const int64_t row = data_.caption_of_image[static_cast<size_t>(image)];
  if (!trained_text_encoder_) {
    const auto integers = torch::dtype(torch::kInt64).device(model_.unet.device());
    return data_.captions.select(torch::full({count}, row, integers));
  }
  const auto token_ids = data_.caption_token_ids.narrow(0, row, 1).expand({count, -1});
  return model_.unet.prepare_text(trained_text_encoder_->encode(token_ids, &step));
}

}  // namespace brushwork
