// Defines: NativeError, describe_current_exception, to_js_error, with_js_errors (C++ exceptions as JavaScript errors).
#pragma once

#include <napi.h>

#include <string>

#include "core/errors.h"

namespace brushwork::binding {

// An exception as it crosses from the task thread to the JavaScript thread.
struct NativeError {
  ErrorCode code;
  std::string message;
};

// The exception being handled (call it inside a catch block), others' named by describe_failure.
NativeError describe_current_exception();

// An `Error` with `code` as in `common/errors.ts` and the name of the class there, e.g. "GpuFaultError".
Napi::Error to_js_error(Napi::Env env, const NativeError& error);

// What `body` returns. On the JavaScript thread: throws Napi::Error and nothing else, its own ones as they are.
template <typename Body>
auto with_js_errors(Napi::Env env, Body body) -> decltype(body()) {
  try {
    return body();
  } catch (const Napi::Error&) {
    throw;
  } catch (...) {
    throw to_js_error(env, describe_current_exception());
  }
}

}  // namespace brushwork::binding
