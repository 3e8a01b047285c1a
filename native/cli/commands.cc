#include "cli/commands.h"

#include <ATen/DeviceAccelerator.h>
#include <ATen/Parallel.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include "core/errors.h"
#include "core/model_io/json.h"
#include "core/model_io/lora_export.h"
#include "core/model_io/random_base_model.h"
#include "core/runtime_info.h"
#include "core/train/checkpoint.h"
#include "core/train/trainer.h"

namespace brushwork::cli {

namespace {

// What `bench` and `train-synthetic` share: a model, and a job of pictures made by a formula.
struct SyntheticJob {
  std::string model_directory;
  std::string precision;
  torch::Device device;
  int64_t size_px;
  int64_t image_count;
  TrainingConfig config;
};

SyntheticJob read_job(Options& options, int64_t default_epochs) {
  const auto device = options.string("device", torch::cuda::is_available() ? "cuda" : "cpu");
  at::set_num_threads(static_cast<int>(options.integer("threads", at::get_num_threads())));
  SyntheticJob job{options.string("model"),
                   options.string("precision", "no"),
                   device == "cuda" ? torch::Device(torch::kCUDA, 0) : torch::Device(device),
                   options.integer("size", 512),
                   options.integer("images", 4),
                   {}};
  require_device(job.device);
  job.config = {.seed = options.integer("seed", 0),
                .rank = options.integer("rank", 16),
                .alpha = options.number("alpha", 32),
                .dropout = options.number("dropout", 0.1),
                .learning_rate = options.number("learning-rate", 1e-4),
                .weight_decay = 0.01,
                .epochs = options.integer("epochs", default_epochs),
                .batch_size = options.integer("batch", 1),
                .gradient_accumulation = options.integer("accumulation", 1),
                .max_grad_norm = std::nullopt,
                .train_text_encoder = options.integer("train-text-encoder", 0) != 0,
                .gradient_checkpointing = options.integer("gradient-checkpointing", 0) != 0};
  return job;
}

BaseModel load_model(const SyntheticJob& job) {
  torch::Dtype dtype = torch::kFloat32;
  if (job.precision == "fp16") {
    dtype = torch::kFloat16;
  } else if (job.precision == "bf16") {
    dtype = torch::kBFloat16;
  } else if (job.precision != "no") {
    throw Error(ErrorCode::kInvalidRequest, "--precision must be no, fp16 or bf16, not " + job.precision);
  }
  return load_base_model(job.model_directory, {.device = job.device, .unet_dtype = dtype});
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

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double peak_rss_mib() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

Json peak_gpu_mib(torch::Device device) {
  if (device.is_cpu()) return nullptr;
  const auto stats = at::accelerator::getDeviceStats(device.index());
  const auto& allocated = stats.allocated_bytes[static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE)];
  return static_cast<double>(allocated.peak) / (1 << 20);
}

double quantile(std::vector<double> values, double fraction) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(fraction * static_cast<double>(values.size() - 1))];
}

}  // namespace

void make_base_model(Options& options) {
  const auto directory = options.string("directory");
  const auto preset = options.string("preset", "small");
  const int64_t seed = options.integer("seed", 0);
  options.check_all_used();
  write_random_base_model(directory, preset, seed);
}

void bench(Options& options) {
  constexpr int64_t kEndless = 1'000'000'000;
  const auto job = read_job(options, kEndless);
  const int64_t warmup_steps = options.integer("warmup", 5);
  const int64_t steps = options.integer("steps", 30);
  options.check_all_used();
  if (steps < 1) throw Error(ErrorCode::kInvalidRequest, "--steps must be at least 1");

  auto start = std::chrono::steady_clock::now();
  const auto model = load_model(job);
  const double load_s = seconds_since(start);
  start = std::chrono::steady_clock::now();
  Trainer trainer(model, job.config, make_images(job, model));
  const double prepare_s = seconds_since(start);

  std::vector<double> durations_ms;
  int64_t steps_run = 0;
  double loss = 0;
  trainer.train(
      kEndless,
      [&](const StepReport& report) {
        loss = report.loss;
        if (++steps_run > warmup_steps) durations_ms.push_back(report.duration_ms);
      },
      [&] { return steps_run >= warmup_steps + steps; });

  const auto runtime = read_runtime_info();
  const double median_ms = quantile(durations_ms, 0.5);
  const Json result = {{"device", job.device.str()},
                       {"gpu", runtime.gpu_name ? Json(*runtime.gpu_name) : Json(nullptr)},
                       {"torch", runtime.torch},
                       {"threads", at::get_num_threads()},
                       {"precision", job.precision},
                       {"size_px", job.size_px},
                       {"batch", job.config.batch_size},
                       {"rank", job.config.rank},
                       {"steps", steps},
                       {"ms_per_step_median", median_ms},
                       {"ms_per_step_p90", quantile(durations_ms, 0.9)},
                       {"steps_per_second", 1000 / median_ms},
                       {"load_s", load_s},
                       {"prepare_s", prepare_s},
                       {"peak_rss_mib", peak_rss_mib()},
                       {"peak_gpu_mib", peak_gpu_mib(job.device)},
                       {"last_loss", loss}};
  std::printf("%s\n", result.dump(2).c_str());
}

void train_synthetic(Options& options) {
  constexpr int64_t kDefaultEpochs = 10;
  const auto job = read_job(options, kDefaultEpochs);
  const auto output = options.string("output");
  const auto checkpoint = options.string("restore", "");
  options.check_all_used();

  const auto model = load_model(job);
  Trainer trainer(model, job.config, make_images(job, model));
  if (!checkpoint.empty()) restore_checkpoint(trainer, checkpoint);
  trainer.train(job.config.epochs, [](const StepReport& report) {
    const Json line = {{"step", report.step},
                       {"epoch", report.epoch},
                       {"loss", report.loss},
                       {"timesteps", report.timesteps},
                       {"learning_rate", report.learning_rate}};
    std::printf("%s\n", line.dump().c_str());
  });
  export_lora(trainer.result(),
              {.base_model_name = job.model_directory,
               .width_px = job.size_px,
               .height_px = job.size_px,
               .prediction_type = model.scheduler.prediction_type},
              output);
  save_checkpoint(trainer, output + "/checkpoint.safetensors");
}

}  // namespace brushwork::cli
