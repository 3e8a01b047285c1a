#include "core/runtime_info.h"

#include <ATen/DeviceAccelerator.h>
#include <dlfcn.h>

#include <cstdlib>

#include "core/errors.h"

namespace brushwork {

namespace {

// "13.0" of 13000.
std::string cuda_version() {
  const long version = at::detail::getCUDAHooks().versionCUDART();
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// By the driver's own function, so that no header of the CUDA toolkit is needed.
std::string first_gpu_name() {
  constexpr const char* kUnknown = "unknown GPU";
  using CuDeviceGetName = int (*)(char* name, int capacity, int device);
  void* driver = dlopen("libcuda.so.1", RTLD_LAZY);
  if (driver == nullptr) return kUnknown;
  const auto get_name = reinterpret_cast<CuDeviceGetName>(dlsym(driver, "cuDeviceGetName"));
  char name[256] = {};
  constexpr int kSuccess = 0;
  if (get_name == nullptr || get_name(name, sizeof name, 0) != kSuccess) return kUnknown;
  return name;
}

// pytorch v2.11.0: docs/source/notes/randomness.rst; native/transformers/cuda/attention_backward.cu, where gradients of
// attention are only summed in a fixed order when nothing is "warn only".
void use_repeatable_kernels() {
  // https://docs.nvidia.com/cuda/cublas, "Results Reproducibility". Read at the first product, and libtorch then
  // refuses every other value (aten/src/ATen/Context.cpp, alertCuBLASConfigNotDeterministic).
  const char* workspace = std::getenv("CUBLAS_WORKSPACE_CONFIG");
  const bool is_fixed = workspace != nullptr && std::string(workspace) == ":16:8";
  if (!is_fixed) setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/1);
  auto& context = at::globalContext();
  context.setDeterministicAlgorithms(true, /*warn_only=*/false);
  context.setDeterministicCuDNN(true);
  context.setBenchmarkCuDNN(false);
  // We never read memory that was not written.
  context.setDeterministicFillUninitializedMemory(false);
}

}  // namespace

RuntimeInfo read_runtime_info() {
  RuntimeInfo info{TORCH_VERSION, std::nullopt, std::nullopt, std::nullopt};
  if (!torch::cuda::is_available()) return info;
  info.cuda = cuda_version();
  info.gpu_memory_mib = static_cast<int64_t>(at::accelerator::getMemoryInfo(0).second >> 20);
  info.gpu_name = first_gpu_name();
  return info;
}

void prepare_device(torch::Device device, GpuKernels kernels) {
  if (device.is_cpu()) return;
  if (torch::cuda::is_available()) {
    auto& context = at::globalContext();
    context.setAllowTF32CuDNN(false);
    // The default, but for where the environment says otherwise, as images of NVIDIA do.
    context.setAllowTF32CuBLAS(false);
    if (kernels == GpuKernels::kRepeatable) {
      use_repeatable_kernels();
    } else {
      // Tries the algorithms of a convolution when it first meets its shape.
      context.setBenchmarkCuDNN(true);
    }
    return;
  }
  // hasCUDA() is false for a CUDA build without a GPU as well.
  const std::string reason = at::globalContext().hasCUDART()
                                 ? "this process sees no GPU: check `nvidia-smi`, the driver and CUDA_VISIBLE_DEVICES"
                                 : "this build of the trainer is for the CPU: build it with BRUSHWORK_CUDA=1";
  throw Error(ErrorCode::kInvalidRequest, "The device 'cuda' was asked for, but " + reason + ".");
}

}  // namespace brushwork
