// A small base model for tests, and places for their files.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>

#include "core/model_io/base_model.h"
#include "core/model_io/lora_import.h"
#include "core/model_io/random_base_model.h"
#include "core/runtime_info.h"

namespace brushwork::test {

// A new directory that is removed with everything in it.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string pattern = (std::filesystem::temp_directory_path() / "brushwork-test-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("can't make a temporary directory");
    path_ = pattern;
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }

  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline std::string read_file(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

// One for the whole program.
inline const TemporaryDirectory& temporary_directory() {
  static const TemporaryDirectory directory;
  return directory;
}

// Where models are held and trained: BRUSHWORK_TEST_DEVICE (cpu, cuda), else the CPU.
inline torch::Device test_device() {
  static const torch::Device device = [] {
    const char* name = std::getenv("BRUSHWORK_TEST_DEVICE");
    if (name == nullptr || std::string(name) == "cpu") return torch::Device(torch::kCPU);
    const torch::Device gpu(torch::kCUDA, 0);
    prepare_device(gpu);
    return gpu;
  }();
  return device;
}

// The directory of a random preset: with its seed, the model that make_golden.py uses.
inline std::string random_model_directory(const std::string& preset) {
  const auto directory = temporary_directory() / (preset + "-model");
  if (!std::filesystem::exists(directory)) write_random_base_model(directory, preset, 7);
  return directory;
}

// A random preset in `dtype`, on the test's device.
inline BaseModel load_random_model(const std::string& preset, torch::Dtype dtype = torch::kFloat32) {
  return load_base_model(random_model_directory(preset), {.device = test_device(), .unet_dtype = dtype});
}

// The tiny preset with the LoRA at `path`.
inline ModelWithLora load_with_lora(const std::string& path, torch::Dtype dtype = torch::kFloat32) {
  return load_base_model_with_lora(random_model_directory("tiny"), {.device = test_device(), .unet_dtype = dtype},
                                   path);
}

inline BaseModel load_tiny_model(torch::Dtype dtype = torch::kFloat32) { return load_random_model("tiny", dtype); }

inline const BaseModel& tiny_model() {
  static const BaseModel model = load_tiny_model();
  return model;
}

}  // namespace brushwork::test
