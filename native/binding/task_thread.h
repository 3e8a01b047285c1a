// Defines: TaskThread (a thread of our own whose work is seen as promises by JavaScript).
#pragma once

#include <napi.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace brushwork::binding {

// What to do on the JavaScript thread with the result of some work: resolve the promise.
using Settle = std::function<void(Napi::Env, Napi::Promise::Deferred)>;
// Native work; runs on the task thread and must not touch anything of N-API.
using Work = std::function<Settle()>;

// Runs work in the order in which it was given, one piece at a time. Not libuv's pool: that has four threads which
// files and DNS need too, and training would hold one for hours. Keeps the process alive while work is pending and not
// longer.
class TaskThread {
 public:
  // JavaScript thread. `on_start` runs first on the new thread. Throws std::system_error where there can't be another.
  TaskThread(Napi::Env env, const char* name, std::function<void()> on_start = {});
  // JavaScript thread. Abandons the work and joins.
  ~TaskThread();
  TaskThread(const TaskThread&) = delete;
  TaskThread& operator=(const TaskThread&) = delete;

  // JavaScript thread. The promise of `work`; an exception of any kind rejects it (see native_error.h). `on_settle` is
  // called on the JavaScript thread just before, and destroyed there; `work` is destroyed on the task thread.
  Napi::Promise run(Napi::Env env, Work work, std::function<void()> on_settle = {});

  // Task thread. Calls `callback` on the JavaScript thread, in order and before the promise of the running work
  // settles.
  void call_javascript(std::function<void(Napi::Env)> callback);

  // JavaScript thread. Makes the end of the process wait for the threads of `env`: `process.exit()` runs no clean-up
  // hooks, and a thread that still computes while libtorch's statics are destroyed crashes. Does nothing in a worker
  // thread: its end runs the hooks and destroys no statics.
  static void join_all_on_exit(Napi::Env env);

  // Any thread. True when the environment is being torn down: work should end at the next opportunity.
  bool is_abandoned() const { return abandoned_; }

 private:
  struct Task {
    Work work;
    std::function<void()> on_settle;
    Napi::Promise::Deferred deferred;
  };
  using Callback = std::function<void(Napi::Env)>;
  static void run_callback(Napi::Env env, Napi::Function, std::nullptr_t*, Callback* callback);
  using JavaScriptCalls = Napi::TypedThreadSafeFunction<std::nullptr_t, Callback, &TaskThread::run_callback>;

  void loop(const std::function<void()>& on_start);
  void run_task(Task& task);
  void finish_one(Napi::Env env);
  void shut_down();
  static void on_environment_exit(void* self);

  napi_env env_;
  JavaScriptCalls javascript_calls_;
  size_t pending_count_ = 0;  // JavaScript thread only
  std::atomic<bool> abandoned_ = false;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Task> tasks_;
  std::thread thread_;
};

}  // namespace brushwork::binding
