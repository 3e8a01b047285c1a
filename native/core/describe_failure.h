// Defines: describe_failure (exceptions of others as ours).
#pragma once

#include <exception>

#include "core/errors.h"

namespace brushwork {

// Names what went wrong in libtorch and below it, in words: want of memory is GPU_OUT_OF_MEMORY on every device, a
// fault of the device GPU_FAULT, what nobody foresaw INTERNAL. An `Error` stays as it is.
Error describe_failure(const std::exception& failure);

}  // namespace brushwork
