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
  return config;
}

torch::Generator make_device_generator(torch::Device device) {
  if (device.is_cpu()) return make_generator(0);
  return at::globalContext().getAcceleratorHooksInterface(device.type()).getNewGenerator(device.index());
}

StreamPlace place(const TrainingConfig& config, RandomStream stream, int64_t index) {
  return {static_cast<uint64_t>(config.seed), stream, static_cast<uint64_t>(index)};
}

LoraParameters draw_lora(const BaseModel& model, const TrainingConfig& config) {
  LoraParameters lora(model.unet.lora_layout(), {config.rank, config.alpha, config.dropout}, model.unet.device());
  lora.initialize([&](int64_t ordinal) { return make_generator(place(config, RandomStream::kLoraInit, ordinal)); });
  return lora;
}

}  // namespace

Trainer::Trainer(const BaseModel& model, const TrainingConfig& config, std::vector<TrainingImage> images,
                 const ShouldStop& should_stop)
    : model_(model),
      config_(checked(config)),
      device_(model.unet.device()),
      schedule_(model.scheduler, device_),
      lora_(draw_lora(model, config)),
      optimizer_({.learning_rate = config.learning_rate, .weight_decay = config.weight_decay}, lora_.values().detach()),
      dropout_generator_(make_device_generator(device_)),
      data_(encode_training_data(model, std::move(images), should_stop)) {
  if (model.unet.dtype() == torch::kFloat16) scaler_.emplace(device_);
  allocate_inputs();
}

void Trainer::allocate_inputs() {
  const int64_t batch = std::min(config_.batch_size, data_.image_count());
  const auto integers = torch::dtype(torch::kInt64).device(device_);
  const auto floats = torch::dtype(torch::kFloat32).device(device_);
  auto latent_shape = data_.latent_means.sizes().vec();
  latent_shape[0] = batch;
  inputs_ = {torch::zeros({batch}, integers), torch::zeros({batch}, integers), torch::zeros(latent_shape, floats),
             torch::zeros(latent_shape, floats), torch::zeros({batch}, integers)};
  metrics_ = torch::zeros({2}, floats);
}

int64_t Trainer::micro_steps_per_epoch() const {
  return (data_.image_count() + config_.batch_size - 1) / config_.batch_size;
}

Position Trainer::position() const {
  return {micro_steps_run_ / micro_steps_per_epoch(), micro_steps_run_,
          static_cast<int64_t>(optimizer_.step_count().item<double>())};
}

bool Trainer::train(int64_t until_epoch, const std::function<void(const StepReport&)>& on_step,
                    const ShouldStop& should_stop) {
  if (until_epoch > config_.epochs) {
    throw Error(ErrorCode::kInvalidRequest, "Training until epoch " + std::to_string(until_epoch) +
                                                " was asked of a job of " + std::to_string(config_.epochs) +
                                                " epochs.");
  }
  if (diverged_) fail_diverged();
  torch::Tensor order;
  int64_t ordered_epoch = -1;
  while (micro_steps_run_ < until_epoch * micro_steps_per_epoch()) {
    if (should_stop && should_stop()) return true;
    const int64_t epoch = micro_steps_run_ / micro_steps_per_epoch();
    if (epoch != ordered_epoch) {
      order = epoch_order(epoch);
      ordered_epoch = epoch;
    }
    const auto report = micro_step(order);
    if (on_step) on_step(report);
  }
  return false;
}

torch::Tensor Trainer::epoch_order(int64_t epoch) const {
  return draw_permutation(data_.image_count(), place(config_, RandomStream::kEpochOrder, epoch));
}

// One micro-step of the recipe: inputs on the host, then work on the device that waits for nothing, then one read.
StepReport Trainer::micro_step(const torch::Tensor& order) {
  const auto start = std::chrono::steady_clock::now();
  const int64_t step = micro_steps_run_;
  const int64_t first = step % micro_steps_per_epoch() * config_.batch_size;
  const auto image_indices = order.slice(0, first, first + config_.batch_size);

  // 1. Inputs.
  const auto timesteps = fill_inputs(image_indices);
  // 2. Loss and its gradient, added to the window's.
  accumulate_gradients(inputs_.first(image_indices.numel()));
  // 3. Update of the parameters at the window's end.
  if (window_ends_after(step + 1)) optimizer_step();
  // 4. What the host wants to know, in one transfer.
  if (scaler_) metrics_[1].copy_(scaler_->scale());
  const auto metrics = metrics_.cpu();
  const double loss = metrics[0].item<float>();

  ++micro_steps_run_;
  // fp16 skips a non-finite step and halves its scale; when that leads nowhere, the loss itself has diverged.
  diverged_ = scaler_ ? metrics[1].item<float>() < 1.0f : !std::isfinite(loss);
  if (diverged_) fail_diverged();
  const std::chrono::duration<double, std::milli> duration = std::chrono::steady_clock::now() - start;
  const auto* begin = timesteps.data_ptr<int64_t>();
  return {step,
          step / micro_steps_per_epoch(),
          loss,
          std::vector<int64_t>(begin, begin + timesteps.numel()),
          config_.learning_rate,
          duration.count()};
}

torch::Tensor Trainer::fill_inputs(const torch::Tensor& image_indices) {
  const int64_t batch = image_indices.numel();
  const auto inputs = inputs_.first(batch);
  const auto shape = inputs.noise.sizes();
  auto caption_indices = torch::empty_like(image_indices);
  for (int64_t i = 0; i < batch; ++i) {
    const auto image = static_cast<size_t>(image_indices.data_ptr<int64_t>()[i]);
    caption_indices.data_ptr<int64_t>()[i] = data_.caption_of_image[image];
  }
  const auto timesteps = draw_integers(schedule_.config().num_train_timesteps, batch,
                                       place(config_, RandomStream::kTimestep, micro_steps_run_));
  inputs.image_indices.copy_(image_indices);
  inputs.caption_indices.copy_(caption_indices);
  inputs.latent_noise.copy_(draw_normal(shape, place(config_, RandomStream::kLatentSample, micro_steps_run_)));
  inputs.noise.copy_(draw_normal(shape, place(config_, RandomStream::kNoise, micro_steps_run_)));
  inputs.timesteps.copy_(timesteps);
  const auto dropout = place(config_, RandomStream::kDropout, micro_steps_run_);
  dropout_generator_.set_current_seed(stream_seed(dropout.seed, dropout.stream, dropout.index));
  return timesteps;
}

Trainer::StepInputs Trainer::StepInputs::first(int64_t count) const {
  const auto take = [count](const torch::Tensor& tensor) { return tensor.narrow(0, 0, count); };
  return {take(image_indices), take(caption_indices), take(latent_noise), take(noise), take(timesteps)};
}

// huggingface/diffusers v0.42.1, examples/text_to_image/train_text_to_image_lora.py, the training loop's body.
void Trainer::accumulate_gradients(const StepInputs& inputs) {
  const auto mean = data_.latent_means.index_select(0, inputs.image_indices);
  const auto std = data_.latent_stds.index_select(0, inputs.image_indices);
  const auto latents = (mean + std * inputs.latent_noise) * model_.vae.config().scaling_factor;
  const auto noisy = schedule_.add_noise(latents, inputs.noise, inputs.timesteps);
  const auto target = schedule_.target(latents, inputs.noise, inputs.timesteps);

  LoraStep lora(lora_, model_.unet.dtype(), dropout_generator_);
  const auto text = data_.captions.select(inputs.caption_indices);
  const auto prediction = model_.unet.forward(noisy, inputs.timesteps, text, &lora, config_.gradient_checkpointing);
  const auto loss = torch::mse_loss(prediction, target);
  const auto share = loss / static_cast<double>(config_.gradient_accumulation);
  (scaler_ ? share * scaler_->scale() : share).backward();
  metrics_[0].copy_(loss.detach());
}

void Trainer::optimizer_step() {
  auto gradients = lora_.gradients();
  torch::Tensor found_inf;
  if (scaler_) found_inf = scaler_->unscale_(gradients);
  if (config_.max_grad_norm) clip_grad_norm_(gradients, *config_.max_grad_norm);
  optimizer_.step(gradients, found_inf);
  if (scaler_) scaler_->update(found_inf);
  gradients.zero_();
}

bool Trainer::window_ends_after(int64_t micro_steps) const {
  const int64_t within_epoch = micro_steps % micro_steps_per_epoch();
  return within_epoch % config_.gradient_accumulation == 0;
}

void Trainer::fail_diverged() const {
  throw Error(ErrorCode::kLossNotFinite,
              "The loss became NaN or infinite at micro-step " + std::to_string(micro_steps_run_ - 1) + " (epoch " +
                  std::to_string((micro_steps_run_ - 1) / micro_steps_per_epoch()) +
                  "). Lower the learning rate, or train with mixed_precision bf16 or no, from the last checkpoint.");
}

RunState Trainer::state() const {
  if (diverged_) fail_diverged();
  return state_layout(micro_steps_run_);
}

RunState Trainer::state_layout(int64_t micro_steps) const {
  RunState state{};
  state.micro_steps_run = micro_steps;
  state.params = lora_.values().detach();
  state.exp_avg = optimizer_.exp_avg();
  state.exp_avg_sq = optimizer_.exp_avg_sq();
  state.step_count = optimizer_.step_count();
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
  optimizer_.exp_avg().copy_(state.exp_avg);
  optimizer_.exp_avg_sq().copy_(state.exp_avg_sq);
  optimizer_.step_count().copy_(state.step_count);
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
  diverged_ = false;
}

}  // namespace brushwork
