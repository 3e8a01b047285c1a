#include "binding/trainer_object.h"

#include <ATen/Parallel.h>

#include <utility>

#include "binding/native_error.h"
#include "core/model_io/lora_export.h"
#include "core/model_io/lora_import.h"
#include "core/train/checkpoint.h"

namespace brushwork::binding {

namespace {

// Resolves with the JavaScript form of `result`.
template <typename Result>
Settle resolve_with(Result result) {
  return [result = std::move(result)](Napi::Env env, Napi::Promise::Deferred deferred) {
    deferred.Resolve(to_js(env, result));
  };
}

void resolve_with_nothing(Napi::Env env, Napi::Promise::Deferred deferred) { deferred.Resolve(env.Undefined()); }

// The `onStep` of one call of `train`; used and destroyed on the JavaScript thread only.
struct StepListener {
  Napi::FunctionReference function;
  std::optional<Napi::Error> thrown;  // what it threw first; holds a value of any type

  void call(Napi::Env env, const StepReport& report, std::atomic<bool>& stop_requested) {
    if (thrown) return;
    try {
      function.Call({to_js(env, report)});
    } catch (const Napi::Error& error) {
      thrown = error;
      stop_requested = true;
    }
  }
};

std::vector<PictureSize> picture_sizes(const Trainer& job) {
  std::vector<PictureSize> sizes;
  for (const auto& size : job.data().sizes) {
    sizes.push_back({size.width_px, size.height_px, size.image_count * job.config().repeats});
  }
  return sizes;
}

Napi::Value to_js_train_result(Napi::Env env, const Position& position, bool stopped) {
  auto object = Napi::Object::New(env);
  object.Set("position", to_js(env, position));
  object.Set("stopped", stopped);
  return object;
}

}  // namespace

Napi::Function TrainerObject::define(Napi::Env env) {
  return DefineClass(
      env, "Trainer",
      {InstanceMethod<&TrainerObject::load_base_model>("loadBaseModel"),
       InstanceMethod<&TrainerObject::start_job>("startJob"), InstanceMethod<&TrainerObject::restore>("restore"),
       InstanceMethod<&TrainerObject::train>("train"), InstanceMethod<&TrainerObject::validate>("validate"),
       InstanceMethod<&TrainerObject::stop>("stop"), InstanceMethod<&TrainerObject::save_checkpoint>("saveCheckpoint"),
       InstanceMethod<&TrainerObject::export_weights>("exportWeights"),
       InstanceMethod<&TrainerObject::sample>("sample")});
}

TrainerObject::TrainerObject(const Napi::CallbackInfo& info)
    : Napi::ObjectWrap<TrainerObject>(info), options_(to_trainer_options(info[0])) {
  with_js_errors(info.Env(), [&] {
    prepare_device(options_.device);
    // libtorch's thread count belongs to the thread that sets it.
    thread_ = std::make_unique<TaskThread>(info.Env(), "brushwork trainer",
                                           [count = options_.thread_count] { at::set_num_threads(count); });
  });
}

Napi::Value TrainerObject::run(Napi::Env env, Work work, std::shared_ptr<void> held) {
  Ref();
  return thread_->run(env, std::move(work), [this, held = std::move(held)] { Unref(); });
}

ShouldStop TrainerObject::when_abandoned() const {
  return [thread = thread_.get()] { return thread->is_abandoned(); };
}

ShouldStop TrainerObject::when_stopped() const {
  return [this] { return stop_requested_ || thread_->is_abandoned(); };
}

BaseModel& TrainerObject::require_model() {
  if (!model_) throw Error(ErrorCode::kInvalidRequest, "No base model is loaded: call loadBaseModel first.");
  return *model_;
}

void TrainerObject::require_plain_model() {
  if (file_lora_) {
    throw Error(
        ErrorCode::kInvalidRequest,
        "The base model was loaded with a LoRA, which is part of it now: call loadBaseModel without one first.");
  }
}

Trainer& TrainerObject::require_job() {
  if (!job_) throw Error(ErrorCode::kInvalidRequest, "No job is started: call startJob first.");
  return *job_;
}

Napi::Value TrainerObject::load_base_model(const Napi::CallbackInfo& info) {
  return run(info.Env(), [this, options = to_load_base_model_options(info[0])] {
    // The old ones go first: two base models may not fit the device.
    validation_.reset();
    job_.reset();
    file_lora_.reset();
    model_.reset();
    const BaseModelOptions how{.device = options_.device, .unet_dtype = options.unet_dtype};
    if (options.lora) {
      auto [model, lora] = load_base_model_with_lora(options.directory, how, *options.lora);
      model_.emplace(std::move(model));
      file_lora_.emplace(std::move(lora));
    } else {
      model_.emplace(brushwork::load_base_model(options.directory, how));
    }
    return resolve_with(describe(*model_));
  });
}

Napi::Value TrainerObject::start_job(const Napi::CallbackInfo& info) {
  // Shared, because a std::function must be copyable, and pictures are too large to copy.
  const auto job = with_js_errors(info.Env(), [&] { return std::make_shared<Job>(to_job(info[0])); });
  return run(info.Env(), [this, job]() -> Settle {
    auto& model = require_model();
    validation_.reset();
    job_.reset();
    require_plain_model();
    if (job->unet_dtype != model.unet.dtype()) {
      throw Error(ErrorCode::kInvalidRequest,
                  "The job's mixed_precision differs from the one that the base model was loaded with.");
    }
    auto started = std::make_unique<Trainer>(model, job->config, std::move(job->images), when_abandoned(),
                                             std::move(job->empty_token_ids));
    if (!job->validation_images.empty()) {
      validation_ = std::make_unique<Validation>(model, job->config, std::move(job->validation_images),
                                                 started->trained_text_encoder(), when_abandoned());
    }
    job_ = std::move(started);
    return resolve_with_nothing;
  });
}

Napi::Value TrainerObject::restore(const Napi::CallbackInfo& info) {
  return run(info.Env(), [this, file = to_string(info[0], "checkpointFile")] {
    restore_checkpoint(require_job(), file);
    return resolve_with(require_job().position());
  });
}

Napi::Value TrainerObject::train(const Napi::CallbackInfo& info) {
  const int64_t until_epoch = to_integer(info[0], "untilEpoch");
  const auto listener = std::make_shared<StepListener>();
  listener->function = Napi::Persistent(to_function(info[1], "onStep"));
  stop_requested_ = false;
  const auto work = [this, until_epoch, listener]() -> Settle {
    const auto on_step = [this, listener](const StepReport& report) {
      thread_->call_javascript(
          [this, listener, report](Napi::Env env) { listener->call(env, report, stop_requested_); });
    };
    const bool stopped = require_job().train(until_epoch, on_step, when_stopped());
    const auto position = require_job().position();
    return [listener, position, stopped](Napi::Env env, Napi::Promise::Deferred deferred) {
      if (listener->thrown) {
        deferred.Reject(listener->thrown->Value());
      } else {
        deferred.Resolve(to_js_train_result(env, position, stopped));
      }
    };
  };
  return run(info.Env(), work, listener);
}

Napi::Value TrainerObject::validate(const Napi::CallbackInfo& info) {
  stop_requested_ = false;
  return run(info.Env(), [this]() -> Settle {
    const auto& job = require_job();
    if (!validation_) throw Error(ErrorCode::kInvalidRequest, "The job holds no pictures out: validation has none.");
    const auto loss = validation_->loss(job.result(), when_stopped());
    return [loss](Napi::Env env, Napi::Promise::Deferred deferred) {
      deferred.Resolve(loss ? Napi::Value(Napi::Number::New(env, *loss)) : Napi::Value(env.Null()));
    };
  });
}

void TrainerObject::stop(const Napi::CallbackInfo&) { stop_requested_ = true; }

Napi::Value TrainerObject::save_checkpoint(const Napi::CallbackInfo& info) {
  return run(info.Env(), [this, file = to_string(info[0], "file")] {
    brushwork::save_checkpoint(require_job(), file);
    return resolve_with(require_job().position());
  });
}

Napi::Value TrainerObject::export_weights(const Napi::CallbackInfo& info) {
  return run(info.Env(), [this, options = to_export_options(info[0])]() -> Settle {
    const auto& job = require_job();
    export_lora(job.result(),
                {.base_model_name = options.base_model_name,
                 .resolution_px = options.resolution_px,
                 .prediction_type = job.scheduler().prediction_type,
                 .sizes = picture_sizes(job)},
                options.directory);
    return resolve_with_nothing;
  });
}

const LoraParameters* TrainerObject::find_lora(SampleLora which) {
  if (which == SampleLora::kJob) return &require_job().result();
  if (which == SampleLora::kNone) {
    require_plain_model();
    return nullptr;
  }
  if (!file_lora_) throw Error(ErrorCode::kInvalidRequest, "No LoRA is loaded: name one in loadBaseModel first.");
  return &*file_lora_;
}

Napi::Value TrainerObject::sample(const Napi::CallbackInfo& info) {
  stop_requested_ = false;
  return run(info.Env(), [this, request = to_sample_request(info[0])]() -> Settle {
    const auto& model = require_model();
    const auto picture = sample_picture(model, find_lora(request.lora), request.options, when_stopped());
    return [picture](Napi::Env env, Napi::Promise::Deferred deferred) {
      deferred.Resolve(picture ? Napi::Value(to_js(env, *picture)) : env.Null());
    };
  });
}

}  // namespace brushwork::binding
