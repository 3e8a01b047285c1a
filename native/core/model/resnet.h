// The convolutional parts that UNet and VAE share.
//
// Formulas: https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/resnet.py (ResnetBlock2D),
// downsampling.py (Downsample2D) and upsampling.py (Upsample2D) of the same commit.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/model/layers.h"

namespace brushwork {

// The time projections of all resnets of a UNet as one matrix: they all read the same embedding, so one multiplication
// serves them all. Blocks `add` theirs while they load; `finish` then makes the matrix.
class TimeProjections {
 public:
  // Takes `time_emb_proj` of one block; returns its first column in `project`'s result.
  int64_t add(const Weights& weights, int64_t time_channels, int64_t out_channels);
  void finish();
  // (B, time_channels) -> (B, sum of out_channels) of silu(embedding).
  torch::Tensor project(const torch::Tensor& embedding) const;

 private:
  std::vector<Linear> parts_;
  Linear all_;
  int64_t columns_ = 0;
};

// Two convolutions around an optional time shift, with a skip.
class ResnetBlock {
 public:
  struct Shape {
    int64_t in_channels;
    int64_t out_channels;
    int64_t group_count;
    double eps;
    int64_t time_channels;  // width of the time embedding; 0 in a VAE
  };

  // `projections` may be null where `shape.time_channels` is 0.
  ResnetBlock(const Weights& weights, const Shape& shape, TimeProjections* projections);

  // x (B, in, H, W) -> (B, out, H, W). `time`: the result of `TimeProjections::project`, undefined in a VAE.
  torch::Tensor forward(const torch::Tensor& x, const torch::Tensor& time) const;

 private:
  GroupNorm norm1_;
  Conv2d conv1_;
  GroupNorm norm2_;
  Conv2d conv2_;
  std::optional<Conv2d> shortcut_;
  int64_t time_column_ = 0;
  int64_t out_channels_;
};

// Halves the sides. The UNet pads one pixel all round, the VAE only at the right and the bottom.
class Downsample {
 public:
  Downsample(const Weights& weights, int64_t channels, bool pad_all_round);
  torch::Tensor forward(const torch::Tensor& x) const;

 private:
  Conv2d conv_;
  bool pad_all_round_;
};

// Doubles the sides by repeating pixels, then convolves.
class Upsample {
 public:
  Upsample(const Weights& weights, int64_t channels);
  torch::Tensor forward(const torch::Tensor& x) const;

 private:
  Conv2d conv_;
};

}  // namespace brushwork
