// Defines: TrainingConfig, Position, StepReport, RunState, Trainer (the training of one job).
//
// Letters in shape comments: N images, B batch, C latent channels, H and W latent height and width, P LoRA parameters.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/lora/lora_parameters.h"
#include "core/model_io/base_model.h"
#include "core/torch.h"
#include "core/train/ema_weights.h"
#include "core/train/epoch_batches.h"
#include "core/train/grad_scaler.h"
#include "core/train/lr_schedule.h"
#include "core/train/noise_schedule.h"
#include "core/train/optimizer.h"
#include "core/train/text_encoder_rate.h"
#include "core/train/training_data.h"

namespace brushwork {

// The recipe's numbers for one job. The precision is the base model's (`UNet::dtype()`).
struct TrainingConfig {
  int64_t seed;  // 0 … 2^53-1
  int64_t rank;  // e.g. 16
  double alpha;  // e.g. 32
  double dropout;
  double learning_rate;
  double weight_decay;
  int64_t epochs;
  int64_t batch_size;
  int64_t gradient_accumulation;
  std::optional<double> max_grad_norm;
  OptimizerKind optimizer = OptimizerKind::kAdamW;
  LrScheduler lr_scheduler = LrScheduler::kConstant;
  int64_t lr_warmup_steps = 0;  // optimizer steps
  std::optional<double> min_snr_gamma = std::nullopt;
  double noise_offset = 0.0;
  std::optional<double> ema_decay = std::nullopt;
  bool flip = false;                // half of the pictures, drawn at each micro-step, are mirrored
  double caption_dropout = 0.0;     // probability of training on the empty caption
  int64_t repeats = 1;              // how often each picture comes in an epoch
  bool train_text_encoder = false;  // CLIP's attentions get a LoRA too, part of the same parameters
  // Of the text encoder's LoRA, e.g. 5e-5; none: `learning_rate`.
  std::optional<double> text_encoder_learning_rate = std::nullopt;
  // Less memory for more computation; changes no result.
  bool gradient_checkpointing = false;
};

// Counts of work done.
struct Position {
  int64_t epochs_run;
  int64_t micro_steps_run;
  int64_t optimizer_steps_run;  // skipped fp16 steps do not count
};

// One finished micro-step.
struct StepReport {
  int64_t step;   // from 0, counted over epochs
  int64_t epoch;  // from 0
  double loss;    // mean squared error, weighted where the recipe says so, not divided by the accumulation
  std::vector<int64_t> timesteps;
  double learning_rate;  // of the optimizer step that this micro-step counts for, times the optimizer's own factor
  double duration_ms;
};

// Everything that defines a run besides seed and data: what a checkpoint holds.
struct RunState {
  int64_t micro_steps_run;
  torch::Tensor params;                // float32 (P)
  torch::Tensor step_count;            // float64, 0-dim: optimizer steps
  std::vector<NamedTensor> optimizer;  // `Optimizer::state()`
  torch::Tensor ema;                   // float32 (P); undefined unless there is an average
  torch::Tensor gradients;             // float32 (P) inside an accumulation window, else undefined
  torch::Tensor loss_scale;            // float32, 0-dim; undefined unless fp16
  torch::Tensor growth_tracker;        // int32, 0-dim; undefined unless fp16
};

// Trains one LoRA by the recipe. What step s computes depends on configuration, images and the state before it only;
// given the state of any step, a new Trainer goes on with the same bits. Not thread-safe.
class Trainer {
 public:
  // Encodes pictures and captions, draws the initial LoRA: the run stands at step 0. `model` must outlive the trainer.
  // `empty_caption`: token ids, needed where `caption_dropout` is above 0. Throws INVALID_REQUEST for a number out of
  // its range, and what `encode_training_data` throws.
  Trainer(const BaseModel& model, const TrainingConfig& config, std::vector<TrainingImage> images,
          const ShouldStop& should_stop = {}, std::vector<int32_t> empty_caption = {});

  const TrainingConfig& config() const { return config_; }
  // What is trained.
  const LoraParameters& lora() const { return lora_; }
  // What the training is for: the LoRA itself, or its moving average where there is one.
  const LoraParameters& result() const { return ema_ ? ema_->lora() : lora_; }
  const TrainingData& data() const { return data_; }
  // What encodes captions at each step, in the UNet's type; null where the text encoder is not trained.
  const ClipText* trained_text_encoder() const { return trained_text_encoder_ ? &*trained_text_encoder_ : nullptr; }
  const SchedulerConfig& scheduler() const { return schedule_.config(); }
  torch::Dtype compute_dtype() const { return model_.unet.dtype(); }
  const EpochBatches& batches() const { return batches_; }
  int64_t micro_steps_per_epoch() const { return batches_.count(); }
  Position position() const;

  // Runs micro-steps until `until_epoch` epochs are done or `should_stop` says so; `on_step` hears of each, in order.
  // Returns true when it was stopped. Throws LOSS_NOT_FINITE when loss or LoRA became NaN or infinite, INVALID_REQUEST
  // for an epoch beyond the configuration's.
  bool train(int64_t until_epoch, const std::function<void(const StepReport&)>& on_step,
             const ShouldStop& should_stop = {});

  // The state between two micro-steps. Tensors share the trainer's storage: copy or write them before training on.
  // Throws LOSS_NOT_FINITE after `train` threw it: that state is worth nothing.
  RunState state() const;
  // Tensors with the types and shapes of the state after `micro_steps` of this run; their values mean nothing.
  RunState state_layout(int64_t micro_steps) const;
  // Copies `state` (of the same shapes) into the trainer.
  void set_state(const RunState& state);

 private:
  // Places in the tensor that carries what the host wants to know.
  enum Metric : int64_t { kLoss, kLossScale, kStepCount, kLearningRateFactor, kParameterSum, kMetricCount };

  // Inputs of one micro-step, filled on the host and then read by device work only.
  struct StepInputs {
    torch::Tensor latent_rows;   // int64 (B), of `ImageSize::latent_means`
    torch::Tensor caption_rows;  // int64 (B), of `TrainingData::caption_token_ids`
    torch::Tensor latent_noise;  // float32 (B, C, H, W)
    torch::Tensor noise;         // float32 (B, C, H, W)
    torch::Tensor timesteps;     // int64 (B)
  };

  void allocate_inputs();
  // Trains on the pictures of these indices, int64 (B) on the CPU.
  StepReport micro_step(const torch::Tensor& image_indices);
  // What the pictures of a batch have in common.
  const ImageSize& size_of(const torch::Tensor& image_indices) const;
  // The beginning of `buffers_`, as a batch of `count` pictures of a size needs it.
  StepInputs inputs_for(const ImageSize& size, int64_t count) const;
  // Draws and copies what the next micro-step needs. Returns its timesteps, int64 (B) on the CPU.
  torch::Tensor fill_inputs(const torch::Tensor& image_indices, const StepInputs& inputs);
  // The rows of latents and of captions that the next micro-step takes, each int64 (B) on the CPU.
  torch::Tensor draw_latent_rows(const torch::Tensor& image_indices) const;
  torch::Tensor draw_caption_rows(const torch::Tensor& image_indices) const;
  torch::Tensor draw_noise(at::IntArrayRef shape) const;
  // The captions of `caption_rows`, as the UNet reads them: encoded once, or now where the text encoder is trained.
  TextKeysValues text_of(const torch::Tensor& caption_rows, LoraStep& lora) const;
  torch::Tensor loss_of(const torch::Tensor& prediction, const torch::Tensor& target,
                        const torch::Tensor& timesteps) const;
  void accumulate_gradients(const ImageSize& size, const StepInputs& inputs);
  void optimizer_step();
  // Waits for the device and keeps what later steps need of it.
  std::array<double, kMetricCount> read_metrics();
  // Whether the optimizer steps after `micro_steps` of the run.
  bool window_ends_after(int64_t micro_steps) const;
  [[noreturn]] void fail_diverged() const;

  const BaseModel& model_;
  TrainingConfig config_;
  torch::Device device_;
  NoiseSchedule schedule_;
  LoraParameters lora_;
  std::unique_ptr<Optimizer> optimizer_;
  std::optional<GradScaler> scaler_;
  std::optional<EmaWeights> ema_;
  std::optional<TextEncoderRate> text_encoder_rate_;
  torch::Generator dropout_generator_;
  std::optional<ClipText> trained_text_encoder_;  // of the UNet's type; none: it is not trained
  TrainingData data_;
  EpochBatches batches_;
  LrSchedule lr_schedule_;
  torch::Tensor loss_weights_;   // float32 (num_train_timesteps); undefined: none
  StepInputs buffers_;           // room for the largest batch, noise without its shape
  torch::Tensor learning_rate_;  // 0-dim float64 on the device
  torch::Tensor metrics_;        // float64 (kMetricCount) on the device
  int64_t micro_steps_run_ = 0;
  // What the device knew after the last micro-step.
  int64_t optimizer_steps_run_ = 0;
  double learning_rate_factor_ = 1.0;
  bool diverged_ = false;
};

}  // namespace brushwork
