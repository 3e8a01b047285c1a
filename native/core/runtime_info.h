// Defines: RuntimeInfo, read_runtime_info, require_device (what the process can train on).
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "core/torch.h"

namespace brushwork {

struct RuntimeInfo {
  std::string torch;                      // e.g. "2.11.0"
  std::optional<std::string> cuda;        // version of the CUDA runtime, where a GPU can be used
  std::optional<std::string> gpu_name;    // of device 0
  std::optional<int64_t> gpu_memory_mib;  // of device 0, in total
};

RuntimeInfo read_runtime_info();

// Throws INVALID_REQUEST, saying what is missing, for a device that this process can't use.
void require_device(torch::Device device);

}  // namespace brushwork
