// What the reference tests share: golden values, and the synthetic data of test/reference/recipe.py.
#pragma once

#include <string>
#include <vector>

#include "core/model_io/json.h"
#include "core/model_io/safetensors.h"
#include "core/train/random_streams.h"
#include "tiny_model.h"

namespace brushwork::test {

inline Json golden_json(const std::string& name) { return Json::parse(read_file(GOLDEN_DIRECTORY "/" + name)); }

inline SafetensorsFile golden_tensors(const std::string& name) { return SafetensorsFile(GOLDEN_DIRECTORY "/" + name); }

// recipe.py picture(): RGB (height, width, 3).
inline std::vector<uint8_t> picture(int64_t index, int64_t height, int64_t width) {
  std::vector<uint8_t> pixels;
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t x = 0; x < width; ++x) {
      for (int64_t c = 0; c < 3; ++c) {
        pixels.push_back(static_cast<uint8_t>(
            (x * (3 + index) + y * (5 + 2 * c) + (x * y * (1 + index)) / 16 + 31 * index * c) % 256));
      }
    }
  }
  return pixels;
}

// recipe.py pixels(picture()): float32 (1, 3, height, width).
inline torch::Tensor pixels(int64_t index, int64_t height, int64_t width) {
  auto bytes = picture(index, height, width);
  const auto image = torch::from_blob(bytes.data(), {1, height, width, 3}, torch::kUInt8);
  return (image.to(torch::kFloat32) / 127.5 - 1.0).permute({0, 3, 1, 2}).contiguous();
}

// recipe.py tokens(): 77 ids.
inline std::vector<int32_t> tokens(int32_t index) {
  std::vector<int32_t> ids(77, 1023);
  ids[0] = 1022;
  for (int32_t j = 0; j < 4 + index; ++j) ids[static_cast<size_t>(j) + 1] = (37 * index + 11 * j) % 1000;
  return ids;
}

// tokens() as int64 (1, 77).
inline torch::Tensor token_tensor(int32_t index) { return torch::tensor(tokens(index), torch::kInt64).unsqueeze(0); }

// make_golden.py randn().
inline torch::Tensor randn(uint64_t seed, torch::IntArrayRef shape) {
  const auto generator = make_generator(seed);
  return torch::randn(shape, generator, torch::dtype(torch::kFloat32));
}

}  // namespace brushwork::test
