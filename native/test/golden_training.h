// The trainings of test/reference/make_golden.py and validation_golden.py, for the tests that repeat them.
#pragma once

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/train/trainer.h"
#include "golden.h"

namespace brushwork::test {

// What `golden/training/<name>.json` says: model, pictures, job, and what was measured at each micro-step.
inline Json golden_training(const std::string& name) { return golden_json("training/" + name + ".json"); }

// `final.<key>` and `gradient.<key>` (of the first micro-step; of A only where B does not start at zero) by PEFT's
// keys.
inline SafetensorsFile golden_lora(const std::string& name) {
  return golden_tensors("training/" + name + ".safetensors");
}

inline std::optional<double> number_or_none(const Json& value) {
  return value.is_null() ? std::nullopt : std::optional(value.get<double>());
}

template <typename Value>
Value one_of(const Json& name, const std::map<std::string, Value>& values) {
  return values.at(name.get<std::string>());
}

inline TrainingConfig golden_config(const Json& training) {
  const auto& job = training["job"];
  TrainingConfig config{};
  config.seed = job["seed"].get<int64_t>();
  config.rank = job["rank"].get<int64_t>();
  config.alpha = job["alpha"].get<double>();
  config.dropout = job.value("dropout", 0.0);
  config.learning_rate = job["learning_rate"].get<double>();
  config.weight_decay = job["weight_decay"].get<double>();
  config.epochs = job["epochs"].get<int64_t>();
  config.batch_size = job["batch_size"].get<int64_t>();
  config.gradient_accumulation = job["gradient_accumulation"].get<int64_t>();
  config.max_grad_norm = number_or_none(job["max_grad_norm"]);
  config.optimizer = one_of<OptimizerKind>(
      job["optimizer"],
      {{"adamw", OptimizerKind::kAdamW}, {"lion", OptimizerKind::kLion}, {"prodigy", OptimizerKind::kProdigy}});
  config.lr_scheduler = one_of<LrScheduler>(
      job["lr_scheduler"],
      {{"constant", LrScheduler::kConstant}, {"linear", LrScheduler::kLinear}, {"cosine", LrScheduler::kCosine}});
  config.lr_warmup_steps = job["lr_warmup_steps"].get<int64_t>();
  config.min_snr_gamma = number_or_none(job["min_snr_gamma"]);
  config.noise_offset = job["noise_offset"].get<double>();
  config.ema_decay = number_or_none(job["ema_decay"]);
  config.flip = job["flip"].get<bool>();
  config.caption_dropout = job["caption_dropout"].get<double>();
  // Records of trainings that do not use them lack the keys that came later.
  config.train_text_encoder = job.value("train_text_encoder", false);
  config.text_encoder_learning_rate = number_or_none(job.value("text_encoder_learning_rate", Json()));
  return config;
}

// recipe.py caption([]).
inline std::vector<int32_t> empty_caption() {
  std::vector<int32_t> ids(77, 1023);
  ids[0] = 1022;
  return ids;
}

// Pictures of a golden training: those that are trained on, or those that are held out for its validation.
inline std::vector<TrainingImage> golden_images(const Json& training, bool held_out = false) {
  const auto chosen = training.value("held_out", std::vector<int32_t>{});
  // Those of make_golden.py, in turn.
  const auto sizes =
      training.value("sizes_px", Json::array({Json::array({training["width_px"], training["height_px"]})}));
  std::vector<TrainingImage> images;
  for (int32_t i = 0; i < training["image_count"].get<int32_t>(); ++i) {
    if ((std::find(chosen.begin(), chosen.end(), i) != chosen.end()) != held_out) continue;
    const auto& size = sizes[static_cast<size_t>(i) % sizes.size()];
    const auto width_px = size[0].get<int64_t>(), height_px = size[1].get<int64_t>();
    images.push_back({"picture-" + std::to_string(i), width_px, height_px, picture(i, height_px, width_px), tokens(i)});
  }
  return images;
}

// Starts a new `trainer` from the B of the golden training, where that has others than the recipe's zeros.
inline void draw_initial_b(const Trainer& trainer, const Json& training) {
  const auto& job = training["job"];
  const double bound = job.value("initial_b", 0.0);
  if (bound == 0.0) return;
  constexpr auto kInitialB = static_cast<RandomStream>(32);  // recipe.py INITIAL_B
  const auto& lora = trainer.lora();
  for (int64_t i = 0; i < lora.module_count(); ++i) {
    auto b = lora.b(i);
    b.copy_(draw_uniform(b.sizes(), -bound, bound, {job["seed"].get<uint64_t>(), kInitialB, static_cast<uint64_t>(i)}));
  }
}

inline BaseModel load_golden_model(const Json& training, torch::Dtype dtype = torch::kFloat32) {
  auto model = load_random_model(training["preset"].get<std::string>(), dtype);
  if (training["job"]["prediction_type"] == "v_prediction") {
    model.scheduler.prediction_type = PredictionType::kVPrediction;
  }
  return model;
}

}  // namespace brushwork::test
