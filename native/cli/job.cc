#include "cli/job.h"

#include <ATen/Parallel.h>

#include "core/errors.h"
#include "core/runtime_info.h"

namespace brushwork::cli {

namespace {

// The value of the option `name` by its word, the first one where it is absent.
template <typename Value>
Value choice(Options& options, const std::string& name, const std::vector<std::pair<std::string, Value>>& values) {
  const auto word = options.string(name, values.front().first);
  std::string known;
  for (const auto& [candidate, value] : values) {
    if (candidate == word) return value;
    known += (known.empty() ? "" : ", ") + candidate;
  }
  throw Error(ErrorCode::kInvalidRequest, "--" + name + " must be one of " + known + ", not " + word);
}

std::optional<double> number_or_none(Options& options, const std::string& name) {
  if (options.string(name, "").empty()) return std::nullopt;
  return options.number(name, 0);
}

bool flag(Options& options, const std::string& name) {
  return choice<bool>(options, name, {{"0", false}, {"1", true}});
}

}  // namespace

ModelChoice read_model_choice(Options& options) {
  const auto device = options.string("device", torch::cuda::is_available() ? "cuda" : "cpu");
  at::set_num_threads(static_cast<int>(options.integer("threads", at::get_num_threads())));
  ModelChoice model{options.string("model"), options.string("precision", "no"),
                    device == "cuda" ? torch::Device(torch::kCUDA, 0) : torch::Device(device)};
  const auto kernels = choice<GpuKernels>(options, "kernels",
                                          {{"repeatable", GpuKernels::kRepeatable}, {"fastest", GpuKernels::kFastest}});
  prepare_device(model.device, kernels);
  return model;
}

namespace {

BaseModelOptions model_options(const ModelChoice& choice) {
  torch::Dtype dtype = torch::kFloat32;
  if (choice.precision == "fp16") {
    dtype = torch::kFloat16;
  } else if (choice.precision == "bf16") {
    dtype = torch::kBFloat16;
  } else if (choice.precision != "no") {
    throw Error(ErrorCode::kInvalidRequest, "--precision must be no, fp16 or bf16, not " + choice.precision);
  }
  return {.device = choice.device, .unet_dtype = dtype};
}

}  // namespace

BaseModel load_model(const ModelChoice& choice) { return load_base_model(choice.directory, model_options(choice)); }

ModelWithLora load_model_with_lora(const ModelChoice& choice, const std::string& lora_path) {
  return load_base_model_with_lora(choice.directory, model_options(choice), lora_path);
}

SyntheticJob read_job(Options& options, int64_t default_epochs) {
  SyntheticJob job{read_model_choice(options), options.integer("size", 512), options.integer("images", 4), {}};
  const auto optimizer = choice<OptimizerKind>(
      options, "optimizer",
      {{"adamw", OptimizerKind::kAdamW}, {"lion", OptimizerKind::kLion}, {"prodigy", OptimizerKind::kProdigy}});
  const auto lr_scheduler = choice<LrScheduler>(
      options, "lr-scheduler",
      {{"constant", LrScheduler::kConstant}, {"linear", LrScheduler::kLinear}, {"cosine", LrScheduler::kCosine}});
  job.config = {.seed = options.integer("seed", 0),
                .rank = options.integer("rank", 16),
                .alpha = options.number("alpha", 32),
                .dropout = options.number("dropout", 0.1),
                .learning_rate = options.number("learning-rate", 1e-4),
                .weight_decay = options.number("weight-decay", 0.01),
                .epochs = options.integer("epochs", default_epochs),
                .batch_size = options.integer("batch", 1),
                .gradient_accumulation = options.integer("accumulation", 1),
                .max_grad_norm = number_or_none(options, "max-grad-norm"),
                .optimizer = optimizer,
                .lr_scheduler = lr_scheduler,
                .lr_warmup_steps = options.integer("lr-warmup-steps", 0),
                .min_snr_gamma = number_or_none(options, "min-snr-gamma"),
                .noise_offset = options.number("noise-offset", 0),
                .ema_decay = number_or_none(options, "ema-decay"),
                .flip = flag(options, "flip"),
                .caption_dropout = options.number("caption-dropout", 0),
                .repeats = options.integer("repeats", 1),
                .train_text_encoder = flag(options, "train-text-encoder"),
                .text_encoder_learning_rate = number_or_none(options, "text-encoder-learning-rate"),
                .gradient_checkpointing = flag(options, "gradient-checkpointing")};
  return job;
}

std::vector<TrainingImage> make_images(const SyntheticJob& job, const BaseModel& model) {
  const auto& text = model.text_encoder.config();
  std::vector<TrainingImage> images;
  for (int64_t i = 0; i < job.image_count; ++i) {
    TrainingImage image{std::to_string(100000 + i), job.size_px, job.size_px, {}, {}};
    for (int64_t k = 0; k < job.size_px * job.size_px * 3; ++k) {
      image.pixels.push_back(static_cast<uint8_t>((k * (i + 3) + (k >> 9) * 5) % 256));
    }
    for (int64_t k = 0; k < text.max_position_embeddings; ++k) {
      image.token_ids.push_back(static_cast<int32_t>((37 * i + 11 * k) % text.vocab_size));
    }
    images.push_back(std::move(image));
  }
  return images;
}

std::vector<int32_t> make_empty_caption(const BaseModel& model) {
  const auto& text = model.text_encoder.config();
  return std::vector<int32_t>(static_cast<size_t>(text.max_position_embeddings),
                              static_cast<int32_t>(text.vocab_size - 1));
}

}  // namespace brushwork::cli
