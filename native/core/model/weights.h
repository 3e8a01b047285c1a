// Where model parts take their weights from, without knowing whether a file or a random generator stands behind them.
#pragma once

#include <string>
#include <utility>

#include "core/torch.h"

namespace brushwork {

// Hands out the tensors of one model by their full key, each once.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  virtual bool contains(const std::string& key) const = 0;
  // A CPU tensor of exactly `shape`. Throws MODEL_LOAD_FAILED naming the key where it is missing or ill-shaped.
  virtual torch::Tensor take(const std::string& key, torch::IntArrayRef shape) = 0;
  // Elements handed out so far.
  int64_t taken_count() const { return taken_count_; }

 private:
  friend class Weights;
  int64_t taken_count_ = 0;
};

// A view of a source below a key prefix, with the device and type that the weights shall have. Cheap to copy.
class Weights {
 public:
  Weights(WeightSource& source, torch::Device device, torch::Dtype dtype)
      : source_(&source), device_(device), dtype_(dtype) {}

  torch::Device device() const { return device_; }
  torch::Dtype dtype() const { return dtype_; }
  // The path so far, e.g. "down_blocks.0.attentions.0".
  const std::string& path() const { return path_; }

  // The weights below `part`, e.g. `at("attn1")` or `at("resnets", 0)`.
  Weights at(const std::string& part) const {
    Weights below = *this;
    below.path_ = path_.empty() ? part : path_ + "." + part;
    return below;
  }
  Weights at(const std::string& part, size_t index) const { return at(part + "." + std::to_string(index)); }

  bool contains(const std::string& name) const { return source_->contains(at(name).path()); }

  // The tensor `name` below this path, always in memory of its own: mapped files are not aligned for the fast kernels.
  torch::Tensor take(const std::string& name, torch::IntArrayRef shape) const {
    const auto found = source_->take(at(name).path(), shape);
    source_->taken_count_ += found.numel();
    return found.to(device_, dtype_, /*non_blocking=*/false, /*copy=*/true);
  }
  // Elements handed out so far by the whole source.
  int64_t taken_count() const { return source_->taken_count(); }

 private:
  WeightSource* source_;
  torch::Device device_;
  torch::Dtype dtype_;
  std::string path_;
};

}  // namespace brushwork
