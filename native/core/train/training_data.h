// Defines: TrainingImage, ImageSize, TrainingData (what the frozen models make of a job's pictures and captions,
// computed once).
//
// Letters in shape comments: N images, K distinct captions, S tokens, C latent channels; M images of one size, H and W
// its latent height and width.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/model_io/base_model.h"
#include "core/torch.h"

namespace brushwork {

// One training picture, decoded, in sRGB.
struct TrainingImage {
  std::string name;  // the recipe's sort key, UTF-8
  int64_t width_px;
  int64_t height_px;
  std::vector<uint8_t> pixels;     // RGB, (height_px, width_px, 3)
  std::vector<int32_t> token_ids;  // caption, padded and truncated to the text encoder's length
};

// Asked at every place where work can end early; true makes it end there.
using ShouldStop = std::function<bool()>;

// What is encoded beside the pictures and captions themselves.
struct EncodeOptions {
  bool flipped = false;                // each picture mirrored left to right as well
  std::vector<int32_t> empty_caption;  // token ids; none: not encoded
  bool train_text_encoder = false;     // captions are encoded at each step: `TrainingData::captions` stays undefined
};

// A size of pictures and the latents of those that have it, in the order of their names. R = M, or 2 M where pictures
// are mirrored as well: row M + i is row i mirrored, encoded by itself (the latent of a mirrored picture is not the
// mirrored latent).
struct ImageSize {
  int64_t width_px;
  int64_t height_px;
  int64_t image_count;         // M
  torch::Tensor latent_means;  // float32 (R, C, H, W)
  torch::Tensor latent_stds;   // float32 (R, C, H, W)
};

// The data set on the model's device, images sorted by name.
struct TrainingData {
  std::vector<ImageSize> sizes;           // by width, then height
  std::vector<int64_t> size_of_image;     // (N), of `sizes`
  std::vector<int64_t> row_of_image;      // (N), of its size's latents
  TextKeysValues captions;                // rows: (K); undefined where the text encoder is trained
  torch::Tensor caption_token_ids;        // int64 (K, S)
  std::vector<int64_t> caption_of_image;  // (N), rows of `captions`
  int64_t empty_caption;                  // row of `captions`; -1 where there is none

  int64_t image_count() const { return static_cast<int64_t>(caption_of_image.size()); }
};

// Sorts `images` by name and encodes each picture and each distinct caption once. Throws IMAGE_INVALID for pictures
// whose sizes do not suit the model or do not match their pixels, INVALID_REQUEST for no picture, two of one name or a
// caption of the wrong length, INTERNAL when `should_stop` ended the work.
TrainingData encode_training_data(const BaseModel& model, std::vector<TrainingImage> images,
                                  const EncodeOptions& options, const ShouldStop& should_stop);

}  // namespace brushwork
