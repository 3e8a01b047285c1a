#include "cli/commands.h"

#include <ATen/DeviceAccelerator.h>
#include <ATen/Parallel.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "cli/job.h"
#include "core/errors.h"
#include "core/model_io/json.h"
#include "core/model_io/lora_export.h"
#include "core/model_io/random_base_model.h"
#include "core/model_io/safetensors.h"
#include "core/runtime_info.h"
#include "core/train/checkpoint.h"

namespace brushwork::cli {

namespace {

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

// By the names of the modules, as diffusers spells them.
void write_gradients(const LoraParameters& lora, const std::string& file) {
  std::map<std::string, torch::Tensor> tensors;
  for (int64_t i = 0; i < lora.module_count(); ++i) {
    const auto& name = lora.targets()[static_cast<size_t>(i)].name;
    tensors.emplace(name + ".lora_A.weight", lora.a_gradient(i));
    tensors.emplace(name + ".lora_B.weight", lora.b_gradient(i));
  }
  write_safetensors(file, tensors);
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
  const auto model = load_model(job.model);
  const double load_s = seconds_since(start);
  start = std::chrono::steady_clock::now();
  Trainer trainer(model, job.config, make_images(job, model), {}, make_empty_caption(model));
  const double prepare_s = seconds_since(start);
  const Json prepare_peak_gpu_mib = peak_gpu_mib(job.model.device);
  if (!job.model.device.is_cpu()) at::accelerator::resetPeakStats(job.model.device.index());

  std::vector<double> durations_ms;
  int64_t steps_run = 0;
  double loss = 0;
  trainer.train(
      job.config.epochs,
      [&](const StepReport& report) {
        loss = report.loss;
        if (++steps_run > warmup_steps) durations_ms.push_back(report.duration_ms);
      },
      [&] { return steps_run >= warmup_steps + steps; });

  if (durations_ms.empty()) {
    throw Error(ErrorCode::kInvalidRequest, "--epochs ends the training before the steps of --warmup are over");
  }

  const auto runtime = read_runtime_info();
  const double median_ms = quantile(durations_ms, 0.5);
  const Json result = {{"device", job.model.device.str()},
                       {"gpu", runtime.gpu_name ? Json(*runtime.gpu_name) : Json(nullptr)},
                       {"torch", runtime.torch},
                       {"threads", at::get_num_threads()},
                       {"precision", job.model.precision},
                       {"size_px", job.size_px},
                       {"batch", job.config.batch_size},
                       {"rank", job.config.rank},
                       {"steps", durations_ms.size()},
                       {"ms_per_step_median", median_ms},
                       {"ms_per_step_p90", quantile(durations_ms, 0.9)},
                       {"steps_per_second", 1000 / median_ms},
                       {"load_s", load_s},
                       {"prepare_s", prepare_s},
                       {"peak_rss_mib", peak_rss_mib()},
                       {"prepare_peak_gpu_mib", prepare_peak_gpu_mib},
                       {"peak_gpu_mib", peak_gpu_mib(job.model.device)},
                       {"last_loss", loss}};
  std::printf("%s\n", result.dump(2).c_str());
}

void train_synthetic(Options& options) {
  constexpr int64_t kDefaultEpochs = 10;
  const auto job = read_job(options, kDefaultEpochs);
  const auto output = options.string("output");
  const auto checkpoint = options.string("restore", "");
  const auto gradients = options.string("gradients", "");
  options.check_all_used();
  if (!gradients.empty() && (job.config.gradient_accumulation < 2 || !checkpoint.empty())) {
    throw Error(ErrorCode::kInvalidRequest,
                "--gradients needs --accumulation 2 or more, and a training from its start");
  }

  const auto model = load_model(job.model);
  const auto start = std::chrono::steady_clock::now();
  Trainer trainer(model, job.config, make_images(job, model), {}, make_empty_caption(model));
  if (!checkpoint.empty()) restore_checkpoint(trainer, checkpoint);
  trainer.train(job.config.epochs, [&](const StepReport& report) {
    if (report.step == 0 && !gradients.empty()) write_gradients(trainer.lora(), gradients);
    const Json line = {{"step", report.step},
                       {"epoch", report.epoch},
                       {"loss", report.loss},
                       {"timesteps", report.timesteps},
                       {"learning_rate", report.learning_rate}};
    std::printf("%s\n", line.dump().c_str());
  });
  const Json end = {{"seconds", seconds_since(start)}, {"peak_rss_mib", peak_rss_mib()}};
  export_lora(trainer.result(),
              {.base_model_name = job.model.directory,
               .resolution_px = job.size_px,
               .prediction_type = model.scheduler.prediction_type,
               .sizes = {}},
              output);
  save_checkpoint(trainer, output + "/checkpoint.safetensors");
  std::printf("%s\n", end.dump().c_str());
}

}  // namespace brushwork::cli
