// A small job for the tests of training.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "core/train/trainer.h"
#include "tiny_model.h"

namespace brushwork::test {

// `count` pictures of 64 x 32 px, each another pattern; every second one shares its caption with the first.
inline std::vector<TrainingImage> tiny_images(int64_t count) {
  std::vector<TrainingImage> images;
  for (int64_t i = 0; i < count; ++i) {
    TrainingImage image{"picture-" + std::to_string(i) + ".png", 64, 32, {}, std::vector<int32_t>(77, 1023)};
    for (int64_t k = 0; k < 64 * 32 * 3; ++k)
      image.pixels.push_back(static_cast<uint8_t>((k * (i + 3) + 40 * i) % 256));
    image.token_ids[0] = 1022;
    image.token_ids[1] = static_cast<int32_t>(i % 2 == 0 ? 5 : 5 + i);
    images.push_back(image);
  }
  return images;
}

// The same with every second picture on its side, of 32 x 64 px.
inline std::vector<TrainingImage> mixed_images(int64_t count) {
  auto images = tiny_images(count);
  for (size_t i = 1; i < images.size(); i += 2) std::swap(images[i].width_px, images[i].height_px);
  return images;
}

inline TrainingConfig tiny_config() {
  return {.seed = 42,
          .rank = 4,
          .alpha = 8,
          .dropout = 0.1,
          .learning_rate = 1e-3,
          .weight_decay = 0.01,
          .epochs = 100,
          .batch_size = 1,
          .gradient_accumulation = 1,
          .max_grad_norm = 1.0};
}

// Stops a training after `count` micro-steps.
inline ShouldStop after_steps(const Trainer& trainer, int64_t count) {
  const int64_t last = trainer.position().micro_steps_run + count;
  return [&trainer, last] { return trainer.position().micro_steps_run >= last; };
}

}  // namespace brushwork::test
