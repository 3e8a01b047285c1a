#include "binding/task_thread.h"

#include <unistd.h>

#include <memory>
#include <set>
#include <utility>

#include "binding/native_error.h"

namespace brushwork::binding {

namespace {

// Of this JavaScript thread.
thread_local std::set<TaskThread*> live_threads;

}  // namespace

TaskThread::TaskThread(Napi::Env env, const char* name, std::function<void()> on_start)
    : env_(env), javascript_calls_(JavaScriptCalls::New(env, name, 0, 1)) {
  javascript_calls_.Unref(env);
  thread_ = std::thread([this, on_start = std::move(on_start)] { loop(on_start); });
  // Hooks run in reverse order of registration, so this one joins the thread while `javascript_calls_` still lives.
  napi_add_env_cleanup_hook(env, &TaskThread::on_environment_exit, this);
  live_threads.insert(this);
}

TaskThread::~TaskThread() {
  napi_remove_env_cleanup_hook(env_, &TaskThread::on_environment_exit, this);
  shut_down();
}

void TaskThread::on_environment_exit(void* self) { static_cast<TaskThread*>(self)->shut_down(); }

void TaskThread::join_all_on_exit(Napi::Env env) {
  if (gettid() != getpid()) return;
  const auto process = env.Global().Get("process").As<Napi::Object>();
  const auto join_all = Napi::Function::New(env, [](const Napi::CallbackInfo&) {
    while (!live_threads.empty()) (*live_threads.begin())->shut_down();
  });
  process.Get("on").As<Napi::Function>().Call(process, {Napi::String::New(env, "exit"), join_all});
}

void TaskThread::shut_down() {
  live_threads.erase(this);
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    abandoned_ = true;
  }
  changed_.notify_one();
  thread_.join();
  javascript_calls_.Release();
}

Napi::Promise TaskThread::run(Napi::Env env, Work work, std::function<void()> on_settle) {
  const auto deferred = Napi::Promise::Deferred::New(env);
  if (pending_count_++ == 0) javascript_calls_.Ref(env);
  {
    const std::lock_guard lock(mutex_);
    tasks_.push_back({std::move(work), std::move(on_settle), deferred});
  }
  changed_.notify_one();
  return deferred.Promise();
}

void TaskThread::call_javascript(std::function<void(Napi::Env)> callback) {
  auto owned = std::make_unique<Callback>(std::move(callback));
  // Refused only while the environment goes down, when nobody waits for it any more.
  if (javascript_calls_.NonBlockingCall(owned.get()) == napi_ok) owned.release();
}

void TaskThread::run_callback(Napi::Env env, Napi::Function, std::nullptr_t*, Callback* callback) {
  const std::unique_ptr<Callback> owned(callback);
  if (env != nullptr) (*owned)(env);
}

void TaskThread::loop(const std::function<void()>& on_start) {
  if (on_start) on_start();
  while (true) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return abandoned_ || !tasks_.empty(); });
    if (abandoned_) return;
    Task task = std::move(tasks_.front());
    tasks_.pop_front();
    lock.unlock();
    run_task(task);
  }
}

void TaskThread::run_task(Task& task) {
  Settle settle;
  try {
    settle = task.work();
  } catch (...) {
    settle = [error = describe_current_exception()](Napi::Env env, Napi::Promise::Deferred deferred) {
      deferred.Reject(to_js_error(env, error).Value());
    };
  }
  // What the work captured may be large; it goes before anyone hears that the work is done.
  task.work = nullptr;
  call_javascript([this, settle = std::move(settle), on_settle = std::move(task.on_settle),
                   deferred = task.deferred](Napi::Env env) {
    finish_one(env);
    if (on_settle) on_settle();
    settle(env, deferred);
  });
}

void TaskThread::finish_one(Napi::Env env) {
  if (--pending_count_ == 0) javascript_calls_.Unref(env);
}

}  // namespace brushwork::binding
