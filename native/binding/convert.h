// Between JavaScript values and plain structs, on the JavaScript thread. Names and order of the fields are those of
// `native/native.ts`; a field that is missing or of another type is a TypeError that names it.
#pragma once

#include <napi.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/runtime_info.h"
#include "core/sample/sample_picture.h"
#include "core/train/trainer.h"

namespace brushwork::binding {

struct TrainerOptions {
  torch::Device device;
  int thread_count;
};

struct LoadBaseModelOptions {
  std::string directory;
  torch::Dtype unet_dtype;
  std::optional<std::string> lora;  // a file or PEFT directory to draw with
};

struct Job {
  TrainingConfig config;
  torch::Dtype unet_dtype;  // of config.mixedPrecision: must be the loaded model's
  std::vector<TrainingImage> images;
  std::vector<TrainingImage> validation_images;  // held out of training; none: no validation
  std::vector<int32_t> empty_token_ids;
};

struct ExportOptions {
  std::string directory;
  std::string base_model_name;
  int64_t resolution_px;
};

// Which LoRA a picture is drawn with.
enum class SampleLora { kNone, kJob, kFile };

struct SampleRequest {
  SampleOptions options;
  SampleLora lora;
};

struct RandomBaseModelOptions {
  std::string directory;
  std::string preset;
  int64_t seed;
};

TrainerOptions to_trainer_options(const Napi::Value& value);
LoadBaseModelOptions to_load_base_model_options(const Napi::Value& value);
Job to_job(const Napi::Value& value);
ExportOptions to_export_options(const Napi::Value& value);
SampleRequest to_sample_request(const Napi::Value& value);
RandomBaseModelOptions to_random_base_model_options(const Napi::Value& value);

// An argument that is no object: `name` is what the TypeError calls it.
std::string to_string(const Napi::Value& value, const char* name);
int64_t to_integer(const Napi::Value& value, const char* name);
Napi::Function to_function(const Napi::Value& value, const char* name);

Napi::Object to_js(Napi::Env env, const Position& position);
Napi::Object to_js(Napi::Env env, const StepReport& report);
Napi::Object to_js(Napi::Env env, const Picture& picture);
Napi::Object to_js(Napi::Env env, const RuntimeInfo& info);

// NativeBaseModelInfo of a loaded model.
struct BaseModelInfo {
  int64_t unet_parameter_count;
  int64_t lora_module_count;
  int64_t vae_scale_factor_px;
  int64_t text_token_count;
  PredictionType prediction_type;
};
BaseModelInfo describe(const BaseModel& model);
Napi::Object to_js(Napi::Env env, const BaseModelInfo& info);

}  // namespace brushwork::binding
