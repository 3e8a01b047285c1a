#include "binding/native_error.h"

#include <c10/util/Exception.h>

#include <cctype>
#include <new>

namespace brushwork::binding {

namespace {

// The CPU allocator reports a full memory as a plain c10::Error; only its text tells
// (pytorch/pytorch v2.11.0, c10/core/impl/alloc_cpu.cpp).
bool is_cpu_allocation_failure(const c10::Error& error) {
  return error.msg().find("DefaultCPUAllocator") != std::string::npos;
}

NativeError out_of_memory(const std::string& detail) {
  return {ErrorCode::kGpuOutOfMemory,
          "The memory of the device does not suffice: " + detail +
              " Use a smaller batch or resolution, mixed precision, or a device with more memory."};
}

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
  } catch (const Error& error) {
    return {error.code(), error.what()};
  } catch (const c10::OutOfMemoryError& error) {
    return out_of_memory(error.what_without_backtrace());
  } catch (const c10::AcceleratorError& error) {
    return {ErrorCode::kGpuFault, std::string("The GPU or its driver failed: ") + error.what_without_backtrace() +
                                      " Start the trainer anew; if it happens again, check the GPU."};
  } catch (const c10::Error& error) {
    if (is_cpu_allocation_failure(error)) return out_of_memory(error.what_without_backtrace());
    return {ErrorCode::kInternal, std::string("libtorch reported: ") + error.what_without_backtrace()};
  } catch (const std::bad_alloc& error) {
    return out_of_memory(error.what());
  } catch (const std::exception& error) {
    return {ErrorCode::kInternal, error.what()};
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
