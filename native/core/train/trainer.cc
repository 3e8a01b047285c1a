#include "core/train/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "core/errors.h"
#include "core/train/random_streams.h"

namespace brushwork {

namespace {

constexpr int64_t kMaxSeed = (1LL << 53) - 1;  // the largest integer that JSON carries safely

void require(bool valid, const char* rule) {
  if (!valid) throw Error(ErrorCode::kInvalidRequest, std::string("The training configuration is invalid: ") + rule);
}

const TrainingConfig& checked(const TrainingConfig& config) {
  require(config.seed >= 0 && config.seed <= kMaxSeed, "seed must be 0 to 2^53-1.");
  require(config.epochs >= 1, "epochs must be at least 1.");
  require(config.batch_size >= 1, "batch_size must be at least 1.");
  require(config.gradient_accumulation >= 1, "gradient_accumulation must be at least 1.");
  require(std::isfinite(config.learning_rate) && config.learning_rate > 0, "learning_rate must be above 0.");
  require(std::isfinite(config.weight_decay) && config.weight_decay >= 0, "weight_decay must not be negative.");
  require(!config.max_grad_norm || (std::isfinite(*config.max_grad_norm) && *config.max_grad_norm > 0),
          "max_grad_norm must be above 0, or absent for no clipping.");
  require(config.lr_warmup_steps >= 0, "lr_warmup_steps must not be negative.");
  require(!config.min_snr_gamma || (std::isfinite(*config.min_snr_gamma) && *config.min_snr_gamma > 0),
          "min_snr_gamma must be above 0, or absent for no weighting.");
  require(std::isfinite(config.noise_offset) && config.noise_offset >= 0, "noise_offset must not be negative.");
  require(!config.ema_decay || (*config.ema_decay >= 0 && *config.ema_decay < 1),
          "ema_decay must be at least 0 and below 1, or absent for no average.");
  require(config.caption_dropout >= 0 && config.caption_dropout <= 1, "caption_dropout must be 0 to 1.");
  require(config.repeats >= 1, "repeats must be at least 1.");
  const auto& text_rate = config.text_encoder_learning_rate;
  require(!text_rate || (std::isfinite(*text_rate) && *text_rate > 0),
          "text_encoder_learning_rate must be above 0, or absent for that of the rest.");
  require(!text_rate || !config.train_text_encoder || config.optimizer != OptimizerKind::kProdigy,
          "Prodigy finds one learning rate for all; leave text_encoder_learning_rate out.");
  return config;
}

torch::Generator make_device_generator(torch::Device device) {
  if (device.is_cpu()) return make_generator(0);
  return at::globalContext().getAcceleratorHooksInterface(device.type()).getNewGenerator(device.index());
}

StreamPlace place(const TrainingConfig& config, RandomStream stream, int64_t index) {
  return {static_cast<uint64_t>(config.seed), stream, static_cast<uint64_t>(index)};
}

// What `values` holds at each of `indices`, int64 (B) on the CPU.
torch::Tensor values_of(const std::vector<int64_t>& values, const torch::Tensor& indices) {
  const auto result = torch::empty_like(indices);
  for (int64_t i = 0; i < indices.numel(); ++i) {
    result.data_ptr<int64_t>()[i] = values[static_cast<size_t>(indices.data_ptr<int64_t>()[i])];
  }
  return result;
}

LoraParameters draw_lora(const BaseModel& model, const TrainingConfig& config) {
  auto layout = model.unet.lora_layout();
  if (config.train_text_encoder) layout = join_layouts(std::move(layout), model.text_encoder.lora_layout());
  LoraParameters lora(layout, {config.rank, config.alpha, config.dropout}, model.unet.device());
  lora.initialize([&](int64_t ordinal) { return make_generator(place(config, RandomStream::kLoraInit, ordinal)); });
  return lora;
}

EncodeOptions encode_options(const TrainingConfig& config, std::vector<int32_t> empty_caption) {
  EncodeOptions options;
  options.flipped = config.flip;
  options.train_text_encoder = config.train_text_encoder;
  if (config.caption_dropout == 0.0) return options;
  require(!empty_caption.empty(), "caption_dropout needs the empty caption.");
  options.empty_caption = std::move(empty_caption);
  return options;
}

LrSchedule make_lr_schedule(const TrainingConfig& config, int64_t micro_steps_per_epoch) {
  // Optimizer steps: one for each window, a short last one included.
  const int64_t window = config.gradient_accumulation;
  const int64_t steps_per_epoch = (micro_steps_per_epoch + window - 1) / window;
  return {config.lr_scheduler, config.learning_rate, config.lr_warmup_steps, config.epochs * steps_per_epoch};
}

}  // namespace

Trainer::Trainer(const BaseModel& model, const TrainingConfig& config, std::vector<TrainingImage> images,
                 const ShouldStop& should_stop, std::vector<int32_t> empty_caption)
    : model_(model),
      config_(checked(config)),
      device_(model.unet.device()),
      schedule_(model.scheduler, device_),
      lora_(draw_lora(model, config)),
      optimizer_(make_optimizer(config.optimizer, config.weight_decay, lora_.values().detach())),
      dropout_generator_(make_device_generator(device_)),
      data_(encode_training_data(model, std::move(images), encode_options(config, std::move(empty_caption)),
                                 should_stop)),
      batches_(data_.size_of_image, config.repeats, config.batch_size),
      lr_schedule_(make_lr_schedule(config, batches_.count())) {
  if (model.unet.dtype() == torch::kFloat16) scaler_.emplace(device_);
  if (config.train_text_encoder) trained_text_encoder_.emplace(model.text_encoder.to(model.unet.dtype()));
  if (config.train_text_encoder && config.text_encoder_learning_rate) {
    text_encoder_rate_.emplace(lora_, *config.text_encoder_learning_rate / config.learning_rate);
  }
  if (config.ema_decay) ema_.emplace(lora_, *config.ema_decay);
  if (config.min_snr_gamma) loss_weights_ = schedule_.min_snr_weights(*config.min_snr_gamma);
  allocate_inputs();
}

void Trainer::allocate_inputs() {
  int64_t batch = 0, noise = 0;
  for (size_t i = 0; i < data_.sizes.size(); ++i) {
    const int64_t largest = batches_.largest(static_cast<int64_t>(i));
    batch = std::max(batch, largest);
    noise = std::max(noise, largest * data_.sizes[i].latent_means[0].numel());
  }
  const auto integers = torch::dtype(torch::kInt64).device(device_);
  const auto floats = torch::dtype(torch::kFloat32).device(device_);
  buffers_ = {torch::zeros({batch}, integers), torch::zeros({batch}, integers), torch::zeros({noise}, floats),
              torch::zeros({noise}, floats), torch::zeros({batch}, integers)};
  learning_rate_ = torch::zeros({}, floats.dtype(torch::kFloat64));
  metrics_ = torch::ones({kMetricCount}, floats.dtype(torch::kFloat64));
}

const ImageSize& Trainer::size_of(const torch::Tensor& image_indices) const {
  const auto image = static_cast<size_t>(image_indices.data_ptr<int64_t>()[0]);
  return data_.sizes[static_cast<size_t>(data_.size_of_image[image])];
}

Trainer::StepInputs Trainer::inputs_for(const ImageSize& size, int64_t count) const {
  auto shape = size.latent_means.sizes().vec();
  shape[0] = count;
  const auto take = [count](const torch::Tensor& buffer) { return buffer.narrow(0, 0, count); };
  const auto shaped = [&](const torch::Tensor& buffer) {
    return buffer.narrow(0, 0, c10::multiply_integers(shape)).view(shape);
  };
  return {take(buffers_.latent_rows), take(buffers_.caption_rows), shaped(buffers_.latent_noise),
          shaped(buffers_.noise), take(buffers_.timesteps)};
}

Position Trainer::position() const {
  return {micro_steps_run_ / micro_steps_per_epoch(), micro_steps_run_, optimizer_steps_run_};
}

bool Trainer::train(int64_t until_epoch, const std::function<void(const StepReport&)>& on_step,
                    const ShouldStop& should_stop) {
  if (until_epoch > config_.epochs) {
    throw Error(ErrorCode::kInvalidRequest, "Training until epoch " + std::to_string(until_epoch) +
                                                " was asked of a job of " + std::to_string(config_.epochs) +
                                                " epochs.");
  }
  if (diverged_) fail_diverged();
  std::vector<torch::Tensor> batches;
  int64_t ordered_epoch = -1;
  while (micro_steps_run_ < until_epoch * micro_steps_per_epoch()) {
    if (should_stop && should_stop()) return true;
    const int64_t epoch = micro_steps_run_ / micro_steps_per_epoch();
    if (epoch != ordered_epoch) {
      const auto order = place(config_, RandomStream::kEpochOrder, epoch);
      batches = batches_.in_order(draw_permutation(batches_.image_count(), order));
      ordered_epoch = epoch;
    }
    const auto report = micro_step(batches[static_cast<size_t>(micro_steps_run_ % micro_steps_per_epoch())]);
    if (on_step) on_step(report);
  }
  return false;
}

// One micro-step of the recipe: inputs on the host, then work on the device that waits for nothing, then one read.
StepReport Trainer::micro_step(const torch::Tensor& image_indices) {
  const auto start = std::chrono::steady_clock::now();
  const int64_t step = micro_steps_run_;

  // 1. Inputs.
  const auto& size = size_of(image_indices);
  const auto inputs = inputs_for(size, image_indices.numel());
  const auto timesteps = fill_inputs(image_indices, inputs);
  const double learning_rate = lr_schedule_.at(optimizer_steps_run_);
  learning_rate_.fill_(learning_rate);
  const double effective_learning_rate = learning_rate * learning_rate_factor_;
  // 2. Loss and its gradient, added to the window's.
  accumulate_gradients(size, inputs);
  // 3. Update of the parameters at the window's end.
  if (window_ends_after(step + 1)) optimizer_step();
  // 4. What the host wants to know, in one transfer.
  const auto metrics = read_metrics();
  const double loss = metrics[kLoss];

  ++micro_steps_run_;
  // fp16 skips a non-finite step and halves its scale; when that leads nowhere, the loss itself has diverged. A finite
  // loss may have a gradient that is not: after the last step of a run no other loss would tell.
  diverged_ = (scaler_ ? metrics[kLossScale] < 1.0 : !std::isfinite(loss)) || !std::isfinite(metrics[kParameterSum]);
  if (diverged_) fail_diverged();
  const std::chrono::duration<double, std::milli> duration = std::chrono::steady_clock::now() - start;
  const auto* begin = timesteps.data_ptr<int64_t>();
  return {step,
          step / micro_steps_per_epoch(),
          loss,
          std::vector<int64_t>(begin, begin + timesteps.numel()),
          effective_learning_rate,
          duration.count()};
}

std::array<double, Trainer::kMetricCount> Trainer::read_metrics() {
  if (scaler_) metrics_[kLossScale].copy_(scaler_->scale());
  metrics_[kStepCount].copy_(optimizer_->step_count());
  metrics_[kParameterSum].copy_(lora_.values().detach().sum());
  const auto factor = optimizer_->learning_rate_factor();
  if (factor.defined()) metrics_[kLearningRateFactor].copy_(factor);
  const auto on_host = metrics_.cpu();
  std::array<double, kMetricCount> values{};
  std::copy_n(on_host.data_ptr<double>(), values.size(), values.begin());
  optimizer_steps_run_ = static_cast<int64_t>(values[kStepCount]);
  learning_rate_factor_ = values[kLearningRateFactor];
  return values;
}

torch::Tensor Trainer::fill_inputs(const torch::Tensor& image_indices, const StepInputs& inputs) {
  const int64_t batch = image_indices.numel();
  const auto shape = inputs.noise.sizes();
  const auto timesteps = draw_integers(schedule_.config().num_train_timesteps, batch,
                                       place(config_, RandomStream::kTimestep, micro_steps_run_));
  inputs.latent_rows.copy_(draw_latent_rows(image_indices));
  inputs.caption_rows.copy_(draw_caption_rows(image_indices));
  inputs.latent_noise.copy_(draw_normal(shape, place(config_, RandomStream::kLatentSample, micro_steps_run_)));
  inputs.noise.copy_(draw_noise(shape));
  inputs.timesteps.copy_(timesteps);
  const auto dropout = place(config_, RandomStream::kDropout, micro_steps_run_);
  dropout_generator_.set_current_seed(stream_seed(dropout.seed, dropout.stream, dropout.index));
  return timesteps;
}

torch::Tensor Trainer::draw_latent_rows(const torch::Tensor& image_indices) const {
  const auto rows = values_of(data_.row_of_image, image_indices);
  if (!config_.flip) return rows;
  const auto drawn = draw_uniform({rows.numel()}, 0, 1, place(config_, RandomStream::kFlip, micro_steps_run_));
  return rows + (drawn < 0.5).to(torch::kInt64) * size_of(image_indices).image_count;
}

torch::Tensor Trainer::draw_caption_rows(const torch::Tensor& image_indices) const {
  const auto rows = values_of(data_.caption_of_image, image_indices);
  if (config_.caption_dropout == 0.0) return rows;
  const auto drawn =
      draw_uniform({rows.numel()}, 0, 1, place(config_, RandomStream::kCaptionDropout, micro_steps_run_));
  return rows.masked_fill_(drawn < config_.caption_dropout, data_.empty_caption);
}

// The offset: https://www.crosslabs.org/blog/diffusion-with-offset-noise, as in the training script below.
torch::Tensor Trainer::draw_noise(at::IntArrayRef shape) const {
  const auto noise = draw_normal(shape, place(config_, RandomStream::kNoise, micro_steps_run_));
  if (config_.noise_offset == 0.0) return noise;
  const auto offset =
      draw_normal({shape[0], shape[1], 1, 1}, place(config_, RandomStream::kNoiseOffset, micro_steps_run_));
  return noise + config_.noise_offset * offset;
}

TextKeysValues Trainer::text_of(const torch::Tensor& caption_rows, LoraStep& lora) const {
  if (!trained_text_encoder_) return data_.captions.select(caption_rows);
  const auto token_ids = data_.caption_token_ids.index_select(0, caption_rows);
  return model_.unet.prepare_text(trained_text_encoder_->encode(token_ids, &lora));
}

torch::Tensor Trainer::loss_of(const torch::Tensor& prediction, const torch::Tensor& target,
                               const torch::Tensor& timesteps) const {
  if (!loss_weights_.defined()) return torch::mse_loss(prediction, target);
  const auto of_each = torch::mse_loss(prediction, target, at::Reduction::None).mean({1, 2, 3});
  return (of_each * loss_weights_.index_select(0, timesteps)).mean();
}

// huggingface/diffusers v0.42.1, examples/text_to_image/train_text_to_image_lora.py, the training loop's body.
void Trainer::accumulate_gradients(const ImageSize& size, const StepInputs& inputs) {
  const auto mean = size.latent_means.index_select(0, inputs.latent_rows);
  const auto std = size.latent_stds.index_select(0, inputs.latent_rows);
  const auto latents = (mean + std * inputs.latent_noise) * model_.vae.config().scaling_factor;
  const auto noisy = schedule_.add_noise(latents, inputs.noise, inputs.timesteps);
  const auto target = schedule_.target(latents, inputs.noise, inputs.timesteps);

  LoraStep lora(lora_, model_.unet.dtype(), dropout_generator_);
  const auto text = text_of(inputs.caption_rows, lora);
  const auto prediction = model_.unet.forward(noisy, inputs.timesteps, text, &lora, config_.gradient_checkpointing);
  const auto loss = loss_of(prediction, target, inputs.timesteps);
  const auto share = loss / static_cast<double>(config_.gradient_accumulation);
  (scaler_ ? share * scaler_->scale() : share).backward();
  metrics_[kLoss].copy_(loss.detach());
}

void Trainer::optimizer_step() {
  auto gradients = lora_.gradients();
  torch::Tensor found_inf;
  if (scaler_) found_inf = scaler_->unscale_(gradients);
  if (config_.max_grad_norm) clip_grad_norm_(gradients, *config_.max_grad_norm);
  if (text_encoder_rate_) text_encoder_rate_->before_step();
  optimizer_->step(gradients, learning_rate_, found_inf);
  if (text_encoder_rate_) text_encoder_rate_->after_step();
  if (ema_) ema_->update(lora_.values(), optimizer_->step_count(), found_inf);
  if (scaler_) scaler_->update(found_inf);
  gradients.zero_();
}

bool Trainer::window_ends_after(int64_t micro_steps) const {
  const int64_t within_epoch = micro_steps % micro_steps_per_epoch();
  return within_epoch % config_.gradient_accumulation == 0;
}

void Trainer::fail_diverged() const {
  const bool is_half = model_.unet.dtype() == torch::kFloat16;
  throw Error(ErrorCode::kLossNotFinite,
              "The loss or the LoRA became NaN or infinite at micro-step " + std::to_string(micro_steps_run_ - 1) +
                  " (epoch " + std::to_string((micro_steps_run_ - 1) / micro_steps_per_epoch()) +
                  "). Lower the learning rate" + (is_half ? ", or train with mixed_precision bf16 or no" : "") + ".");
}

RunState Trainer::state() const {
  if (diverged_) fail_diverged();
  return state_layout(micro_steps_run_);
}

RunState Trainer::state_layout(int64_t micro_steps) const {
  RunState state{};
  state.micro_steps_run = micro_steps;
  state.params = lora_.values().detach();
  state.step_count = optimizer_->step_count();
  state.optimizer = optimizer_->state();
  if (ema_) state.ema = ema_->lora().values().detach();
  if (!window_ends_after(micro_steps)) state.gradients = lora_.gradients();
  if (scaler_) {
    state.loss_scale = scaler_->scale();
    state.growth_tracker = scaler_->growth_tracker();
  }
  return state;
}

void Trainer::set_state(const RunState& state) {
  const torch::NoGradGuard no_grad;
  lora_.values().detach().copy_(state.params);
  optimizer_->step_count().copy_(state.step_count);
  const auto own = optimizer_->state();
  for (size_t i = 0; i < own.size(); ++i) own[i].tensor.copy_(state.optimizer[i].tensor);
  if (ema_) ema_->lora().values().detach().copy_(state.ema);
  if (state.gradients.defined()) {
    lora_.gradients().copy_(state.gradients);
  } else {
    lora_.gradients().zero_();
  }
  if (scaler_) {
    scaler_->scale().copy_(state.loss_scale);
    scaler_->growth_tracker().copy_(state.growth_tracker);
  }
  micro_steps_run_ = state.micro_steps_run;
  read_metrics();
  diverged_ = false;
}

}  // namespace brushwork
