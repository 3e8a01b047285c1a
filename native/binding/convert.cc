#include "binding/convert.h"

#include <cmath>
#include <cstring>
#include <initializer_list>
#include <optional>
#include <utility>

namespace brushwork::binding {

namespace {

[[noreturn]] void fail(const Napi::Value& value, const std::string& name, const std::string& expected) {
  std::string actual = value.IsUndefined() ? "nothing" : value.IsNull() ? "null" : "";
  if (actual.empty()) actual = value.ToString().Utf8Value();
  throw Napi::TypeError::New(value.Env(), "Expected " + expected + " for " + name + " but received " + actual);
}

constexpr double kMaxSafeInteger = 9007199254740991.0;

int64_t read_integer(const Napi::Value& value, const std::string& name) {
  if (!value.IsNumber()) fail(value, name, "an integer");
  const double number = value.As<Napi::Number>().DoubleValue();
  if (std::floor(number) != number || std::abs(number) > kMaxSafeInteger) fail(value, name, "an integer");
  return static_cast<int64_t>(number);
}

// The fields of one JavaScript object, e.g. `job.config`.
class Fields {
 public:
  Fields(const Napi::Value& value, std::string name) : name_(std::move(name)) {
    if (!value.IsObject()) fail(value, name_, "an object");
    object_ = value.As<Napi::Object>();
  }

  Napi::Value value(const char* field) const { return object_.Get(field); }
  std::string name(const char* field) const { return name_ + "." + field; }

  std::string string(const char* field) const {
    if (!value(field).IsString()) fail(value(field), name(field), "a string");
    return value(field).As<Napi::String>().Utf8Value();
  }

  std::optional<std::string> string_or_null(const char* field) const {
    if (value(field).IsNull()) return std::nullopt;
    if (!value(field).IsString()) fail(value(field), name(field), "a string or null");
    return string(field);
  }

  int64_t integer(const char* field) const { return read_integer(value(field), name(field)); }

  double number(const char* field) const {
    if (!value(field).IsNumber()) fail(value(field), name(field), "a number");
    return value(field).As<Napi::Number>().DoubleValue();
  }

  std::optional<double> number_or_null(const char* field) const {
    if (value(field).IsNull()) return std::nullopt;
    if (!value(field).IsNumber()) fail(value(field), name(field), "a number or null");
    return number(field);
  }

  bool boolean(const char* field) const {
    if (!value(field).IsBoolean()) fail(value(field), name(field), "a boolean");
    return value(field).As<Napi::Boolean>().Value();
  }

  // One of `choices`, as its index.
  size_t choice(const char* field, std::initializer_list<const char*> choices) const {
    std::string expected;
    const auto text = value(field).IsString() ? string(field) : "";
    size_t index = 0;
    for (const char* candidate : choices) {
      if (text == candidate) return index;
      expected += (index++ == 0 ? "'" : " or '") + std::string(candidate) + "'";
    }
    fail(value(field), name(field), expected);
  }

  torch::Dtype mixed_precision(const char* field) const {
    constexpr torch::Dtype kDtypes[] = {torch::kFloat32, torch::kFloat16, torch::kBFloat16};
    return kDtypes[choice(field, {"no", "fp16", "bf16"})];
  }

  template <typename Element>
  std::vector<Element> typed_array(const char* field, napi_typedarray_type type, const char* expected) const {
    if (!value(field).IsTypedArray() || value(field).As<Napi::TypedArray>().TypedArrayType() != type) {
      fail(value(field), name(field), expected);
    }
    const auto array = value(field).As<Napi::TypedArrayOf<Element>>();
    return {array.Data(), array.Data() + array.ElementLength()};
  }

  std::vector<uint8_t> bytes(const char* field) const {
    return typed_array<uint8_t>(field, napi_uint8_array, "a Uint8Array");
  }

  std::vector<int32_t> token_ids(const char* field) const {
    return typed_array<int32_t>(field, napi_int32_array, "an Int32Array");
  }

 private:
  std::string name_;
  Napi::Object object_;
};

TrainingConfig to_training_config(const Fields& fields) {
  constexpr OptimizerKind kOptimizers[] = {OptimizerKind::kAdamW, OptimizerKind::kLion, OptimizerKind::kProdigy};
  constexpr LrScheduler kLrSchedulers[] = {LrScheduler::kConstant, LrScheduler::kLinear, LrScheduler::kCosine};
  return {.seed = fields.integer("seed"),
          .rank = fields.integer("rank"),
          .alpha = fields.number("alpha"),
          .dropout = fields.number("dropout"),
          .learning_rate = fields.number("learningRate"),
          .weight_decay = fields.number("weightDecay"),
          .epochs = fields.integer("epochs"),
          .batch_size = fields.integer("batchSize"),
          .gradient_accumulation = fields.integer("gradientAccumulation"),
          .max_grad_norm = fields.number_or_null("maxGradNorm"),
          .optimizer = kOptimizers[fields.choice("optimizer", {"adamw", "lion", "prodigy"})],
          .lr_scheduler = kLrSchedulers[fields.choice("lrScheduler", {"constant", "linear", "cosine"})],
          .lr_warmup_steps = fields.integer("lrWarmupSteps"),
          .min_snr_gamma = fields.number_or_null("minSnrGamma"),
          .noise_offset = fields.number("noiseOffset"),
          .ema_decay = fields.number_or_null("emaDecay"),
          .flip = fields.boolean("flip"),
          .caption_dropout = fields.number("captionDropout"),
          .repeats = fields.integer("repeats"),
          .train_text_encoder = fields.boolean("trainTextEncoder"),
          .text_encoder_learning_rate = fields.number_or_null("textEncoderLearningRate"),
          .gradient_checkpointing = fields.boolean("gradientCheckpointing")};
}

TrainingImage to_image(const Napi::Value& value, const std::string& name) {
  const Fields fields(value, name);
  return {.name = fields.string("name"),
          .width_px = fields.integer("widthPx"),
          .height_px = fields.integer("heightPx"),
          .pixels = fields.bytes("pixels"),
          .token_ids = fields.token_ids("tokenIds")};
}

std::vector<TrainingImage> to_images(const Fields& fields, const char* field) {
  if (!fields.value(field).IsArray()) fail(fields.value(field), fields.name(field), "an array");
  const auto array = fields.value(field).As<Napi::Array>();
  std::vector<TrainingImage> images;
  for (uint32_t i = 0; i < array.Length(); ++i) {
    images.push_back(to_image(array.Get(i), fields.name(field) + "[" + std::to_string(i) + "]"));
  }
  return images;
}

const char* prediction_type_name(PredictionType type) {
  return type == PredictionType::kVPrediction ? "v_prediction" : "epsilon";
}

template <typename Value>
Napi::Value value_or_null(Napi::Env env, const std::optional<Value>& value) {
  return value ? Napi::Value::From(env, *value) : Napi::Value(env.Null());
}

}  // namespace

TrainerOptions to_trainer_options(const Napi::Value& value) {
  const Fields fields(value, "options");
  const auto device = fields.choice("device", {"cpu", "cuda"}) == 0 ? torch::kCPU : torch::kCUDA;
  const int64_t thread_count = fields.integer("threadCount");
  if (thread_count < 1 || thread_count > 1024) {
    fail(fields.value("threadCount"), fields.name("threadCount"), "an integer between 1 and 1024");
  }
  // Index 0 named: CUDA_VISIBLE_DEVICES chooses the GPU.
  return {device == torch::kCPU ? torch::Device(device) : torch::Device(device, 0), static_cast<int>(thread_count)};
}

LoadBaseModelOptions to_load_base_model_options(const Napi::Value& value) {
  const Fields fields(value, "options");
  return {fields.string("directory"), fields.mixed_precision("mixedPrecision"), fields.string_or_null("lora")};
}

Job to_job(const Napi::Value& value) {
  const Fields fields(value, "job");
  const Fields config(fields.value("config"), fields.name("config"));
  return {to_training_config(config), config.mixed_precision("mixedPrecision"), to_images(fields, "images"),
          to_images(fields, "validationImages"), fields.token_ids("emptyTokenIds")};
}

ExportOptions to_export_options(const Napi::Value& value) {
  const Fields fields(value, "options");
  return {fields.string("directory"), fields.string("baseModelName"), fields.integer("resolutionPx")};
}

SampleRequest to_sample_request(const Napi::Value& value) {
  constexpr SamplerKind kSamplers[] = {SamplerKind::kDdim, SamplerKind::kDpmSolverPlusPlus};
  constexpr SampleLora kLoras[] = {SampleLora::kNone, SampleLora::kJob, SampleLora::kFile};
  const Fields fields(value, "options");
  return {{.token_ids = fields.token_ids("tokenIds"),
           .negative_token_ids = fields.token_ids("negativeTokenIds"),
           .step_count = fields.integer("stepCount"),
           .guidance_scale = fields.number("guidanceScale"),
           .seed = fields.integer("seed"),
           .width_px = fields.integer("widthPx"),
           .height_px = fields.integer("heightPx"),
           .sampler = kSamplers[fields.choice("sampler", {"ddim", "dpm++"})]},
          kLoras[fields.choice("lora", {"none", "job", "file"})]};
}

RandomBaseModelOptions to_random_base_model_options(const Napi::Value& value) {
  const Fields fields(value, "options");
  return {fields.string("directory"), fields.string("preset"), fields.integer("seed")};
}

std::string to_string(const Napi::Value& value, const char* name) {
  if (!value.IsString()) fail(value, name, "a string");
  return value.As<Napi::String>().Utf8Value();
}

int64_t to_integer(const Napi::Value& value, const char* name) { return read_integer(value, name); }

Napi::Function to_function(const Napi::Value& value, const char* name) {
  if (!value.IsFunction()) fail(value, name, "a function");
  return value.As<Napi::Function>();
}

Napi::Object to_js(Napi::Env env, const Position& position) {
  auto object = Napi::Object::New(env);
  object.Set("epochsRun", static_cast<double>(position.epochs_run));
  object.Set("microStepsRun", static_cast<double>(position.micro_steps_run));
  object.Set("optimizerStepsRun", static_cast<double>(position.optimizer_steps_run));
  return object;
}

Napi::Object to_js(Napi::Env env, const StepReport& report) {
  auto timesteps = Napi::Array::New(env, report.timesteps.size());
  for (size_t i = 0; i < report.timesteps.size(); ++i) {
    timesteps.Set(static_cast<uint32_t>(i), static_cast<double>(report.timesteps[i]));
  }
  auto object = Napi::Object::New(env);
  object.Set("step", static_cast<double>(report.step));
  object.Set("epoch", static_cast<double>(report.epoch));
  object.Set("loss", report.loss);
  object.Set("timesteps", timesteps);
  object.Set("learningRate", report.learning_rate);
  object.Set("durationMs", report.duration_ms);
  return object;
}

Napi::Object to_js(Napi::Env env, const Picture& picture) {
  auto pixels = Napi::Uint8Array::New(env, picture.pixels.size());
  std::memcpy(pixels.Data(), picture.pixels.data(), picture.pixels.size());
  auto object = Napi::Object::New(env);
  object.Set("widthPx", static_cast<double>(picture.width_px));
  object.Set("heightPx", static_cast<double>(picture.height_px));
  object.Set("pixels", pixels);
  return object;
}

Napi::Object to_js(Napi::Env env, const RuntimeInfo& info) {
  auto object = Napi::Object::New(env);
  object.Set("torch", info.torch);
  object.Set("cuda", value_or_null(env, info.cuda));
  object.Set("gpuName", value_or_null(env, info.gpu_name));
  object.Set("gpuMemoryMiB", value_or_null(env, info.gpu_memory_mib));
  return object;
}

BaseModelInfo describe(const BaseModel& model) {
  return {model.unet.parameter_count(), static_cast<int64_t>(model.unet.lora_layout().targets.size()),
          model.vae.scale_factor_px(), model.text_encoder.config().max_position_embeddings,
          model.scheduler.prediction_type};
}

Napi::Object to_js(Napi::Env env, const BaseModelInfo& info) {
  auto object = Napi::Object::New(env);
  object.Set("unetParameterCount", static_cast<double>(info.unet_parameter_count));
  object.Set("loraModuleCount", static_cast<double>(info.lora_module_count));
  object.Set("vaeScaleFactorPx", static_cast<double>(info.vae_scale_factor_px));
  object.Set("textTokenCount", static_cast<double>(info.text_token_count));
  object.Set("predictionType", prediction_type_name(info.prediction_type));
  return object;
}

}  // namespace brushwork::binding
