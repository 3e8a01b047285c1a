// What goes wrong, as types: one exception class with a code that machines read and a message that tells people what
// happened and what to do. The codes are those of `common/errors.ts`.
#pragma once

#include <stdexcept>
#include <string>

namespace brushwork {

// The failures that native code can name. `error_code_name` gives the spelling used everywhere else.
enum class ErrorCode {
  kInvalidRequest,          // an argument or a configuration value is out of its range
  kImageInvalid,            // pixels do not fit what the model or the job needs
  kModelLoadFailed,         // the base model is missing, damaged or of an unknown architecture
  kCheckpointIncompatible,  // a checkpoint belongs to another configuration, data set, base model or format
  kChecksumMismatch,        // a file's bytes are not those that its format promises
  kGpuOutOfMemory,          // the device has no memory left for the request
  kGpuFault,                // the device or its driver failed; the process should be replaced
  kLossNotFinite,           // training diverged
  kInternal,                // a defect of ours or an unforeseen failure of the system
};

// The code's name as the backend and `common/errors.ts` spell it, e.g. "MODEL_LOAD_FAILED".
inline const char* error_code_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidRequest:
      return "INVALID_REQUEST";
    case ErrorCode::kImageInvalid:
      return "IMAGE_INVALID";
    case ErrorCode::kModelLoadFailed:
      return "MODEL_LOAD_FAILED";
    case ErrorCode::kCheckpointIncompatible:
      return "CHECKPOINT_INCOMPATIBLE";
    case ErrorCode::kChecksumMismatch:
      return "CHECKSUM_MISMATCH";
    case ErrorCode::kGpuOutOfMemory:
      return "GPU_OUT_OF_MEMORY";
    case ErrorCode::kGpuFault:
      return "GPU_FAULT";
    case ErrorCode::kLossNotFinite:
      return "LOSS_NOT_FINITE";
    case ErrorCode::kInternal:
      return "INTERNAL";
  }
  return "INTERNAL";
}

// The only exception that the core throws on purpose. Exceptions of libtorch pass through it unchanged.
class Error : public std::runtime_error {
 public:
  // `message`: what happened and what to do about it, in words for an operator.
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}

  ErrorCode code() const noexcept { return code_; }
  const char* code_name() const noexcept { return error_code_name(code_); }

 private:
  ErrorCode code_;
};

}  // namespace brushwork
