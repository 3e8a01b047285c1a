// What loading a base model takes in memory. A program of its own: the peak that the system keeps is that of the
// process.
#include <filesystem>
#include <map>
#include <vector>

#include "check.h"
#include "core/model/unet.h"
#include "core/model/weights.h"
#include "core/model_io/json.h"
#include "core/model_io/safetensors.h"
#include "memory_use.h"
#include "tiny_model.h"

using namespace brushwork;
using namespace brushwork::test;

namespace {

constexpr int64_t kMiB = 1 << 20;

// Notes which weights a model asks for.
class ShapeList : public WeightSource {
 public:
  bool contains(const std::string&) const override { return true; }
  torch::Tensor take(const std::string& key, torch::IntArrayRef shape) override {
    shapes_[key] = shape.vec();
    return torch::empty(shape, torch::dtype(torch::kFloat32).device(torch::kMeta));
  }
  const std::map<std::string, std::vector<int64_t>>& shapes() const { return shapes_; }

 private:
  std::map<std::string, std::vector<int64_t>> shapes_;
};

// Writes float32 weights that are all zero, as a hole that takes no room on the disk. Returns their size.
int64_t write_zeros(const std::string& path, const std::map<std::string, std::vector<int64_t>>& shapes) {
  Json header = Json::object();
  int64_t size_bytes = 0;
  for (const auto& [key, shape] : shapes) {
    const int64_t end = size_bytes + c10::multiply_integers(shape) * 4;
    header[key] = {{"dtype", "F32"}, {"shape", shape}, {"data_offsets", {size_bytes, end}}};
    size_bytes = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  std::string length;
  for (int i = 0; i < 8; ++i) length.push_back(static_cast<char>(text.size() >> (8 * i)));
  write_file_atomically(path, length + text);
  std::filesystem::resize_file(path, 8 + text.size() + static_cast<uint64_t>(size_bytes));
  return size_bytes;
}

// The tiny model with a UNet that is much larger. Returns the size of that.
int64_t write_large_model(const std::string& directory) {
  write_random_base_model(directory, "tiny", 1);
  const auto config_file = directory + "/unet/config.json";
  Json config = Json::parse(read_file(config_file));
  config["block_out_channels"] = {448, 896};
  write_file_atomically(config_file, config.dump());
  ShapeList shapes;
  const UNet unet(UNetConfig::read(JsonFile(config_file)), Weights(shapes, torch::kMeta, torch::kFloat32));
  return write_zeros(directory + "/unet/diffusion_pytorch_model.safetensors", shapes.shapes());
}

}  // namespace

TEST(loading_does_not_hold_two_copies) {
  const TemporaryDirectory directory;
  const int64_t weights_bytes = write_large_model(directory.path());
  // Mapped bytes are given back in portions of 256 MiB: the model must be larger than that for a leak to show.
  CHECK(weights_bytes > 400 * kMiB);

  const int64_t own_before = process_memory_bytes("RssAnon"), resident_before = process_memory_bytes("VmRSS");
  int64_t own_bytes = 0;
  const auto measure = [&](const std::string&, const torch::Tensor& weight) {
    own_bytes = std::max(own_bytes, process_memory_bytes("RssAnon") - own_before);
    return weight;
  };
  const auto model = load_base_model(directory.path(), {}, measure);
  measure("", {});
  const int64_t peak_bytes = process_memory_bytes("VmHWM") - resident_before;
  std::printf("# weights %ld MiB, own memory %ld MiB, with the mapped file at most %ld MiB\n", weights_bytes / kMiB,
              own_bytes / kMiB, peak_bytes / kMiB);
  CHECK(own_bytes > weights_bytes * 9 / 10);
  // Beyond the weights: the largest one while its layout changes, and what malloc wastes.
  const double own_limit_bytes = 1.3 * static_cast<double>(weights_bytes);
  CHECK(own_bytes < own_limit_bytes);
  CHECK(peak_bytes < own_limit_bytes + 256 * kMiB);
  CHECK(model.unet.parameter_count() * 4 == weights_bytes);
}

TEST_MAIN()
