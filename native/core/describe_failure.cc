#include "core/describe_failure.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <new>
#include <string>

namespace brushwork {

namespace {

// Types tell little: most of libtorch's failures are plain c10::Errors, those of cuDNN's front end plain
// std::runtime_errors, so their texts have to. Read in pytorch v2.11.0 and cuDNN 9; no GPU has shown us any of them.
constexpr const char* kMemorySigns[] = {
    "DefaultCPUAllocator",   // c10/core/impl/alloc_cpu.cpp
    "STATUS_ALLOC_FAILED",   // cuBLAS
    "_ALLOCATION_FAILED",    // cuDNN: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED, …HOST…
    "error: out of memory",  // CUDA's driver
    // aten/src/ATen/native/cudnn/Conv_v8.cpp goes on to the next plan of a convolution where one finds no memory, and
    // says only that none is left. A fault can hide behind it too; then CUDA's next call names it.
    "unable to find an engine",
    // c10/cuda/CUDACachingAllocator.cpp asks NVML who holds the memory that is lacking, and fails without an answer.
    "NVML_SUCCESS ==",
};
constexpr const char* kFaultSigns[] = {
    "CUDA error:", "CUDA driver error:", "cuDNN error:", "cuDNN Frontend error:", "cudnn_status:"};

template <size_t count>
bool has_one_of(const char* const (&signs)[count], const std::string& text) {
  return std::any_of(std::begin(signs), std::end(signs),
                     [&](const char* sign) { return text.find(sign) != std::string::npos; });
}

ErrorCode code_of(const std::exception& failure, const std::string& text) {
  if (dynamic_cast<const c10::OutOfMemoryError*>(&failure) || dynamic_cast<const std::bad_alloc*>(&failure))
    return ErrorCode::kGpuOutOfMemory;
  if (const auto* error = dynamic_cast<const c10::AcceleratorError*>(&failure)) {
    // Outside libtorch's allocator: pinned memory, streams, a kernel's code that is loaded at its first start.
    constexpr int32_t kCudaErrorMemoryAllocation = 2;
    return error->get_error_code() == kCudaErrorMemoryAllocation ? ErrorCode::kGpuOutOfMemory : ErrorCode::kGpuFault;
  }
  if (has_one_of(kMemorySigns, text)) return ErrorCode::kGpuOutOfMemory;
  return has_one_of(kFaultSigns, text) ? ErrorCode::kGpuFault : ErrorCode::kInternal;
}

// Some texts end with a line feed, most without a full stop.
std::string as_sentence(std::string text) {
  text.erase(text.find_last_not_of(" \n") + 1);
  return text.empty() || text.back() == '.' ? text : text + '.';
}

}  // namespace

Error describe_failure(const std::exception& failure) {
  if (const auto* error = dynamic_cast<const Error*>(&failure)) return *error;
  const auto* torch_error = dynamic_cast<const c10::Error*>(&failure);
  const std::string text = torch_error ? torch_error->what_without_backtrace() : failure.what();
  const ErrorCode code = code_of(failure, text);
  if (code == ErrorCode::kGpuOutOfMemory) {
    return {code, "The memory of the device does not suffice: " + as_sentence(text) +
                      " Use a smaller batch or resolution, mixed precision, or a device with more memory."};
  }
  if (code == ErrorCode::kGpuFault) {
    return {code, "The GPU or its driver failed: " + as_sentence(text) +
                      " Start the trainer anew; if it happens again, check the GPU."};
  }
  return {code, torch_error ? "libtorch reported: " + text : text};
}

}  // namespace brushwork
