// Defines: RuntimeInfo, read_runtime_info, prepare_device (what the process can train on).
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

// Makes the process ready to compute on `device`, before it computes anything. On a GPU that means the same bits each
// time, which resuming rests on: cuDNN's deterministic algorithms, cuBLAS with a fixed workspace
// (CUBLAS_WORKSPACE_CONFIG, where it is not set), and attention whose gradient is summed in a fixed order; and no
// rounding of float32 to TF32. On the CPU kernels are so by themselves. Throws INVALID_REQUEST, saying what is missing,
// for a device that this process can't use.
void prepare_device(torch::Device device);

}  // namespace brushwork
