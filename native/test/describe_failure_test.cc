#include "core/describe_failure.h"

#include <c10/util/Exception.h>

#include <new>
#include <stdexcept>

#include "check.h"

using brushwork::describe_failure;
using brushwork::Error;
using brushwork::ErrorCode;

namespace {

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

void check(const std::exception& failure, ErrorCode code) {
  const Error error = describe_failure(failure);
  if (error.code() == code) return;
  throw std::runtime_error(std::string("got ") + error.code_name() + ": " + error.what());
}

c10::Error libtorch(const std::string& text) { return c10::Error(text); }

c10::AcceleratorError cuda(int32_t code, const std::string& text) {
  return {{"launch", "Kernel.cu", 1}, code, "CUDA error: " + text + "\nCUDA kernel errors might be asynchronous.\n"};
}

}  // namespace

TEST(full_memory_is_told_by_its_type) {
  check(c10::OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), ErrorCode::kGpuOutOfMemory);
  check(std::bad_alloc(), ErrorCode::kGpuOutOfMemory);
}

TEST(full_memory_of_the_machine_is_told_by_its_text) {
  check(libtorch("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
        ErrorCode::kGpuOutOfMemory);
}

TEST(full_memory_outside_the_allocator_is_no_fault) {
  check(cuda(2, "out of memory"), ErrorCode::kGpuOutOfMemory);
  check(libtorch("CUDA driver error: out of memory"), ErrorCode::kGpuOutOfMemory);
}

TEST(full_memory_in_a_library_of_cuda_is_no_defect) {
  check(libtorch("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        ErrorCode::kGpuOutOfMemory);
  check(libtorch("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), ErrorCode::kGpuOutOfMemory);
  check(libtorch("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"), ErrorCode::kGpuOutOfMemory);
}

TEST(a_convolution_without_memory_for_any_plan_is_no_defect) {
  check(libtorch("GET was unable to find an engine to execute this computation"), ErrorCode::kGpuOutOfMemory);
  check(libtorch("FIND was unable to find an engine to execute this computation"), ErrorCode::kGpuOutOfMemory);
}

TEST(full_memory_without_nvml_is_no_defect) {
  check(libtorch("NVML_SUCCESS == DriverAPI::get()->nvmlInit_v2_() INTERNAL ASSERT FAILED at "
                 "\"/pytorch/c10/cuda/CUDACachingAllocator.cpp\":1135, please report a bug to PyTorch. "),
        ErrorCode::kGpuOutOfMemory);
}

TEST(a_fault_of_the_gpu_is_told_by_its_type) {
  check(cuda(700, "an illegal memory access was encountered"), ErrorCode::kGpuFault);
}

TEST(a_fault_in_a_library_of_cuda_is_no_defect) {
  check(libtorch("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(handle)`"),
        ErrorCode::kGpuFault);
  check(libtorch("CUDA driver error: unspecified launch failure"), ErrorCode::kGpuFault);
  check(libtorch("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), ErrorCode::kGpuFault);
  check(libtorch("cuDNN Frontend error: No valid execution plans built."), ErrorCode::kGpuFault);
  check(
      std::runtime_error("CUDNN_BACKEND_TENSOR_DESCRIPTOR: cudnnFinalize failed cudnn_status: CUDNN_STATUS_BAD_PARAM"),
      ErrorCode::kGpuFault);
}

TEST(the_rest_is_a_defect) {
  check(libtorch("The size of tensor a (3) must match the size of tensor b (4)"), ErrorCode::kInternal);
  check(std::runtime_error("basic_string::at"), ErrorCode::kInternal);
}

TEST(ours_stay_as_they_are) {
  const Error error = describe_failure(Error(ErrorCode::kLossNotFinite, "CUDA error: not really."));
  CHECK(error.code() == ErrorCode::kLossNotFinite);
  CHECK(std::string(error.what()) == "CUDA error: not really.");
}

TEST(messages_are_sentences_with_what_to_do) {
  CHECK(
      std::string(describe_failure(libtorch("GET was unable to find an engine")).what()) ==
      "The memory of the device does not suffice: GET was unable to find an engine. Use a smaller batch or resolution, "
      "mixed precision, or a device with more memory.");
  CHECK(std::string(describe_failure(cuda(700, "an illegal memory access was encountered")).what()) ==
        "The GPU or its driver failed: CUDA error: an illegal memory access was encountered\n"
        "CUDA kernel errors might be asynchronous. Start the trainer anew; if it happens again, check the GPU.");
  CHECK(std::string(describe_failure(libtorch("sizes differ")).what()) == "libtorch reported: sizes differ");
  CHECK(std::string(describe_failure(std::runtime_error("odd")).what()) == "odd");
}

TEST(messages_hold_no_backtrace_of_c) {
  try {
    torch::ones({2}).add(torch::ones({3}));
    brushwork::test::fail(__FILE__, __LINE__, "nothing was thrown");
  } catch (const c10::Error& failure) {
    CHECK(contains(failure.what(), "frame #"));
    CHECK(!contains(describe_failure(failure).what(), "frame #"));
  }
}

TEST_MAIN()
