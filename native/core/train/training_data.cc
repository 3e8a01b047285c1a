#include "core/train/training_data.h"

#include <algorithm>
#include <map>
#include <utility>

#include "core/errors.h"

namespace brushwork {

namespace {

std::string size_text(const TrainingImage& image) {
  return std::to_string(image.width_px) + " x " + std::to_string(image.height_px) + " px";
}

// Checked here because a device that looks up a bad id faults, and takes the process with it.
void check_caption(const BaseModel& model, const std::string& what_caption, const std::vector<int32_t>& token_ids) {
  const auto& config = model.text_encoder.config();
  const auto token_count = static_cast<size_t>(config.max_position_embeddings);
  const auto invalid = [&](const std::string& what) {
    return Error(ErrorCode::kInvalidRequest, "The " + what_caption + " " + what);
  };
  if (token_ids.size() != token_count) {
    throw invalid("has " + std::to_string(token_ids.size()) + " tokens; this model needs exactly " +
                  std::to_string(token_count) + " (pad and truncate it).");
  }
  for (const int32_t id : token_ids) {
    if (id < 0 || id >= config.vocab_size) {
      throw invalid("has the token id " + std::to_string(id) + ", but the text encoder knows 0 to " +
                    std::to_string(config.vocab_size - 1) + ": use the tokenizer that belongs to this base model.");
    }
  }
}

void check_images(const BaseModel& model, const std::vector<TrainingImage>& images) {
  if (images.empty()) throw Error(ErrorCode::kInvalidRequest, "A job needs at least one picture, but it has none.");
  const auto levels = static_cast<int64_t>(model.unet.config().block_out_channels.size());
  const int64_t multiple_px = model.vae.scale_factor_px() << (levels - 1);
  for (size_t i = 0; i < images.size(); ++i) {
    const auto& image = images[i];
    const auto invalid = [&](const std::string& what) {
      return Error(ErrorCode::kImageInvalid, "The picture '" + image.name + "' " + what);
    };
    if (i > 0 && image.name == images[i - 1].name) {
      throw Error(ErrorCode::kInvalidRequest, "Two pictures are named '" + image.name + "': give each its own name.");
    }
    if (image.width_px < 1 || image.height_px < 1 || image.width_px % multiple_px != 0 ||
        image.height_px % multiple_px != 0) {
      throw invalid("has " + size_text(image) + "; this model needs sides that are multiples of " +
                    std::to_string(multiple_px) + " px.");
    }
    // By division: the product of two sides that mean nothing may overflow.
    const auto row_bytes = 3 * static_cast<uint64_t>(image.width_px);
    if (image.pixels.size() % row_bytes != 0 ||
        image.pixels.size() / row_bytes != static_cast<uint64_t>(image.height_px)) {
      throw invalid("has " + std::to_string(image.pixels.size()) + " bytes of pixels, which is not " +
                    size_text(image) + " of 8-bit RGB.");
    }
    check_caption(model, "caption of '" + image.name + "'", image.token_ids);
  }
}

// 8-bit RGB to float32 (1, 3, height, width) in [-1, 1].
torch::Tensor to_pixels(TrainingImage& image, torch::Device device) {
  return torch::from_blob(image.pixels.data(), {1, image.height_px, image.width_px, 3}, torch::kUInt8)
      .to(device, torch::kFloat32)
      .permute({0, 3, 1, 2})
      .contiguous()
      .div_(127.5)
      .sub_(1.0);
}

// Posteriors of pictures of one size, one above the other.
struct Encoded {
  std::vector<torch::Tensor> means, stds;

  void push_back(const LatentPosterior& posterior) {
    means.push_back(posterior.mean);
    stds.push_back(posterior.std);
  }
};

// Finds out which sizes there are and which picture has which.
void sort_by_size(const std::vector<TrainingImage>& images, TrainingData& data) {
  std::map<std::pair<int64_t, int64_t>, int64_t> sizes;
  for (const auto& image : images) sizes.try_emplace({image.width_px, image.height_px});
  for (auto& [size, index] : sizes) {
    index = static_cast<int64_t>(data.sizes.size());
    data.sizes.push_back({size.first, size.second, 0, {}, {}});
  }
  for (const auto& image : images) {
    const int64_t index = sizes.at({image.width_px, image.height_px});
    data.size_of_image.push_back(index);
    data.row_of_image.push_back(data.sizes[static_cast<size_t>(index)].image_count++);
  }
}

void encode_images(const BaseModel& model, std::vector<TrainingImage>& images, bool flipped,
                   const ShouldStop& should_stop, TrainingData& data) {
  std::vector<Encoded> plain(data.sizes.size()), mirrored(data.sizes.size());
  for (size_t i = 0; i < images.size(); ++i) {
    if (should_stop && should_stop()) throw Error(ErrorCode::kInternal, "The job was stopped while it was prepared.");
    const auto size = static_cast<size_t>(data.size_of_image[i]);
    const auto pixels = to_pixels(images[i], model.unet.device());
    plain[size].push_back(model.vae.encode(pixels));
    if (flipped) mirrored[size].push_back(model.vae.encode(pixels.flip(3)));
    images[i].pixels = {};
  }
  const auto joined = [](std::vector<torch::Tensor> first, const std::vector<torch::Tensor>& second) {
    first.insert(first.end(), second.begin(), second.end());
    return torch::cat(first);
  };
  for (size_t i = 0; i < data.sizes.size(); ++i) {
    data.sizes[i].latent_means = joined(std::move(plain[i].means), mirrored[i].means);
    data.sizes[i].latent_stds = joined(std::move(plain[i].stds), mirrored[i].stds);
  }
}

void encode_captions(const BaseModel& model, const std::vector<TrainingImage>& images, const EncodeOptions& options,
                     TrainingData& data) {
  std::map<std::vector<int32_t>, int64_t> rows;
  std::vector<torch::Tensor> token_ids_of_rows, states;
  const auto row_of = [&](const std::vector<int32_t>& token_ids) {
    const auto [row, is_new] = rows.try_emplace(token_ids, static_cast<int64_t>(rows.size()));
    if (is_new) {
      const auto ids = torch::tensor(token_ids, torch::kInt64).unsqueeze(0).to(model.unet.device());
      token_ids_of_rows.push_back(ids);
      if (!options.train_text_encoder) states.push_back(model.text_encoder.encode(ids));
    }
    return row->second;
  };
  for (const auto& image : images) data.caption_of_image.push_back(row_of(image.token_ids));
  data.empty_caption = options.empty_caption.empty() ? -1 : row_of(options.empty_caption);
  data.caption_token_ids = torch::cat(token_ids_of_rows);
  if (!options.train_text_encoder) data.captions = model.unet.prepare_text(torch::cat(states));
}

}  // namespace

TrainingData encode_training_data(const BaseModel& model, std::vector<TrainingImage> images,
                                  const EncodeOptions& options, const ShouldStop& should_stop) {
  const torch::NoGradGuard no_grad;
  // UTF-8 compared byte by byte is the recipe's order by code point.
  std::sort(images.begin(), images.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  check_images(model, images);
  if (!options.empty_caption.empty()) check_caption(model, "empty caption", options.empty_caption);
  TrainingData data{};
  sort_by_size(images, data);
  encode_images(model, images, options.flipped, should_stop, data);
  encode_captions(model, images, options, data);
  return data;
}

}  // namespace brushwork
