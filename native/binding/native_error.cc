#include "binding/native_error.h"

#include <cctype>
#include <exception>

#include "core/describe_failure.h"

namespace brushwork::binding {

namespace {

// "GPU_OUT_OF_MEMORY" -> "GpuOutOfMemoryError"
std::string class_name(ErrorCode code) {
  std::string name;
  bool upper = true;
  for (const char c : std::string(error_code_name(code))) {
    if (c != '_') name += static_cast<char>(upper ? c : std::tolower(static_cast<unsigned char>(c)));
    upper = c == '_';
  }
  return name + "Error";
}

}  // namespace

NativeError describe_current_exception() {
  try {
    throw;
  } catch (const std::exception& failure) {
    const Error error = describe_failure(failure);
    return {error.code(), error.what()};
  } catch (...) {
    return {ErrorCode::kInternal, "A C++ exception of an unknown type was thrown."};
  }
}

Napi::Error to_js_error(Napi::Env env, const NativeError& error) {
  auto js_error = Napi::Error::New(env, error.message);
  js_error.Set("name", Napi::String::New(env, class_name(error.code)));
  js_error.Set("code", Napi::String::New(env, error_code_name(error.code)));
  return js_error;
}

}  // namespace brushwork::binding
