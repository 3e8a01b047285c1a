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

// Which kernels a GPU computes with.
enum class GpuKernels {
  kRepeatable,  // the same bits each time, which resuming rests on
  kFastest,     // whatever is fastest, to measure what the others cost
};

// Makes the process ready to compute on `device`, before it computes anything. On a GPU, repeatable kernels are cuDNN's
// deterministic algorithms, cuBLAS with a fixed workspace (CUBLAS_WORKSPACE_CONFIG, where it is not one already), and
// attention whose gradient is summed in a fixed order. float32 is never rounded to TF32. On the CPU kernels are
// repeatable by themselves. Throws INVALID_REQUEST, saying what is missing, for a device that this process can't use.
void prepare_device(torch::Device device, GpuKernels kernels = GpuKernels::kRepeatable);

}  // namespace brushwork
