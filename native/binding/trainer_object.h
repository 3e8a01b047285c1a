// Defines: TrainerObject (the addon's class `Trainer`, see NativeTrainer in native/native.ts).
#pragma once

#include <napi.h>

#include <atomic>
#include <functional>
#include <memory>
#include <optional>

#include "binding/convert.h"
#include "binding/task_thread.h"
#include "core/train/trainer.h"
#include "core/train/validation.h"

namespace brushwork::binding {

class TrainerObject : public Napi::ObjectWrap<TrainerObject> {
 public:
  // The JavaScript class.
  static Napi::Function define(Napi::Env env);

  explicit TrainerObject(const Napi::CallbackInfo& info);

 private:
  Napi::Value load_base_model(const Napi::CallbackInfo& info);
  Napi::Value start_job(const Napi::CallbackInfo& info);
  Napi::Value restore(const Napi::CallbackInfo& info);
  Napi::Value train(const Napi::CallbackInfo& info);
  Napi::Value validate(const Napi::CallbackInfo& info);
  void stop(const Napi::CallbackInfo& info);
  Napi::Value save_checkpoint(const Napi::CallbackInfo& info);
  Napi::Value export_weights(const Napi::CallbackInfo& info);
  Napi::Value sample(const Napi::CallbackInfo& info);

  // Runs `work` on the trainer's thread and keeps this object alive meanwhile. `held`: what `work` uses and must not be
  // the last to hold, since it belongs to the JavaScript thread.
  Napi::Value run(Napi::Env env, Work work, std::shared_ptr<void> held = nullptr);
  // Throws INVALID_REQUEST where the loaded model has a file's LoRA in its weights.
  void require_plain_model();
  // The loaded model and the started job; throw INVALID_REQUEST where there is none.
  BaseModel& require_model();
  Trainer& require_job();
  const LoraParameters* find_lora(SampleLora which);
  ShouldStop when_abandoned() const;
  ShouldStop when_stopped() const;

  TrainerOptions options_;
  std::atomic<bool> stop_requested_ = false;
  // Touched by the task thread alone, except in the destructor, which runs after that thread has ended.
  std::optional<BaseModel> model_;
  std::unique_ptr<Trainer> job_;
  std::optional<LoraParameters> file_lora_;  // loaded with `model_`, and partly in its weights
  std::unique_ptr<Validation> validation_;   // of job_; null where no picture is held out
  // Last, so that it is destroyed (and joined) first.
  std::unique_ptr<TaskThread> thread_;
};

}  // namespace brushwork::binding
