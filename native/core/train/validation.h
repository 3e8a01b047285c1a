// Defines: Validation, the loss on pictures that are held out of training.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/lora/lora_parameters.h"
#include "core/lora/lora_step.h"
#include "core/model_io/base_model.h"
#include "core/torch.h"
#include "core/train/noise_schedule.h"
#include "core/train/trainer.h"
#include "core/train/training_data.h"

namespace brushwork {

// The timesteps on which every held-out picture is measured: the middles of `count` equal parts of 0 …
// `num_train_timesteps`, ascending.
std::vector<int64_t> validation_timesteps(int64_t num_train_timesteps, int64_t count);

// Held-out pictures, encoded. They are measured on the same noise and timesteps each time, so that two values differ
// by what the LoRA learned in between and nothing else. Draws come from streams of their own, so a training beside it
// computes the same bits as without it.
class Validation {
 public:
  // Timesteps per picture.
  static constexpr int64_t kTimestepCount = 8;

  // Encodes pictures and captions, none of them mirrored or dropped. `config`: the job's; its `batch_size` is how many
  // samples go through the UNet at once, which changes the last digits only. `trained_text_encoder`: the job's
  // `Trainer::trained_text_encoder()`, null where it is not trained. It and `model` must outlive this. Throws
  // INVALID_REQUEST for a seed or a batch size out of range, and what `encode_training_data` throws.
  Validation(const BaseModel& model, const TrainingConfig& config, std::vector<TrainingImage> images,
             const ClipText* trained_text_encoder, const ShouldStop& should_stop = {});

  int64_t image_count() const { return data_.image_count(); }

  // Mean squared error of `lora` without dropout, in float32 and unweighted, over all pictures and timesteps; not
  // finite where the model's precision overflows. Nothing when `should_stop`, asked before each pass of the UNet, ended
  // it.
  std::optional<double> loss(const LoraParameters& lora, const ShouldStop& should_stop = {}) const;

 private:
  // The samples of one picture, K timesteps, in the order of the timesteps.
  struct Samples {
    torch::Tensor noisy;   // float32 (K, C, H, W)
    torch::Tensor target;  // float32 (K, C, H, W)
  };
  Samples samples_of(int64_t image) const;
  // The picture's caption `count` times, as the UNet reads it with this LoRA.
  TextKeysValues text_of(int64_t image, int64_t count, LoraStep& step) const;

  const BaseModel& model_;
  uint64_t seed_;
  int64_t batch_size_;
  NoiseSchedule schedule_;
  TrainingData data_;
  const ClipText* trained_text_encoder_;
  torch::Tensor timesteps_;  // int64 (K) on the device
};

}  // namespace brushwork
