// The addon's entry: registers what NativeAddon in native/native.ts declares.
#include <napi.h>
#include <sys/prctl.h>

#include <csignal>

#include "binding/convert.h"
#include "binding/native_error.h"
#include "binding/task_thread.h"
#include "binding/trainer_object.h"
#include "core/model_io/random_base_model.h"

namespace brushwork::binding {

static Napi::Value write_random_base_model(const Napi::CallbackInfo& info) {
  auto& thread = *info.Env().GetInstanceData<TaskThread>();
  return thread.run(info.Env(), [options = to_random_base_model_options(info[0])]() -> Settle {
    brushwork::write_random_base_model(options.directory, options.preset, options.seed);
    return [](Napi::Env env, Napi::Promise::Deferred deferred) { deferred.Resolve(env.Undefined()); };
  });
}

static Napi::Value runtime_info(const Napi::CallbackInfo& info) {
  return with_js_errors(info.Env(), [&] { return to_js(info.Env(), read_runtime_info()); });
}

// The kernel's doing, so that it holds for a process that is stopped, or stands still in a driver, as well.
static void end_with_parent(const Napi::CallbackInfo& info) {
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
    throw Napi::Error::New(info.Env(), "The kernel does not end this process with its parent.");
}

static Napi::Object register_addon(Napi::Env env, Napi::Object exports) {
  TaskThread::join_all_on_exit(env);
  // For the functions that belong to no trainer.
  env.SetInstanceData(new TaskThread(env, "brushwork"));
  exports.Set("Trainer", TrainerObject::define(env));
  exports.Set("writeRandomBaseModel", Napi::Function::New<write_random_base_model>(env, "writeRandomBaseModel"));
  exports.Set("endWithParent", Napi::Function::New<end_with_parent>(env, "endWithParent"));
  exports.Set("runtimeInfo", Napi::Function::New<runtime_info>(env, "runtimeInfo"));
  return exports;
}

}  // namespace brushwork::binding

static Napi::Object init(Napi::Env env, Napi::Object exports) {
  return brushwork::binding::register_addon(env, exports);
}

NODE_API_MODULE(brushwork, init)
