// Defines: Picture, sample_pixels, sample_picture (a prompt becomes a picture).
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/lora/lora_parameters.h"
#include "core/model_io/base_model.h"
#include "core/sample/sample_options.h"
#include "core/torch.h"
#include "core/train/training_data.h"

namespace brushwork {

// RGB, 8 bit, (height_px, width_px, 3).
struct Picture {
  int64_t width_px;
  int64_t height_px;
  std::vector<uint8_t> pixels;
};

// The pixels of what `model` and, where not null, `lora` draw: float32 (1, 3, height_px, width_px), about [-1, 1], on
// the model's device; nothing when `should_stop` ended the work, which it can before each step. Throws INVALID_REQUEST
// for an option out of its range and for a picture of numbers that are not finite.
std::optional<torch::Tensor> sample_pixels(const BaseModel& model, const LoraParameters* lora,
                                           const SampleOptions& options, const ShouldStop& should_stop = {});

// The same as a picture.
std::optional<Picture> sample_picture(const BaseModel& model, const LoraParameters* lora, const SampleOptions& options,
                                      const ShouldStop& should_stop = {});

}  // namespace brushwork
