// Defines: NamedTensor, OptimizerKind, Optimizer, make_optimizer.
//
// Optimizers work on flat float32 buffers (P) that hold every trained parameter, allocate nothing of that size in a
// step and never wait for the device, so a step can be captured as a CUDA graph.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/torch.h"

namespace brushwork {

// A part of a run's state under its name in checkpoints.
struct NamedTensor {
  std::string name;
  torch::Tensor tensor;
};

enum class OptimizerKind { kAdamW, kLion, kProdigy };

// The name in configurations and checkpoints, e.g. "adamw".
const char* optimizer_name(OptimizerKind kind);

// The update rule of one flat parameter buffer.
class Optimizer {
 public:
  virtual ~Optimizer() = default;

  // One update from `grad` (P), which must be finite, with `learning_rate`, 0-dim float64 on the device. `found_inf`
  // (0-dim float32, 1 or 0) makes the step do nothing at all where it is 1, not even advance the step count; an
  // undefined tensor means 0.
  virtual void step(const torch::Tensor& grad, const torch::Tensor& learning_rate, const torch::Tensor& found_inf) = 0;

  // Everything beside the parameters and the step count that the next step depends on. Shares the optimizer's storage.
  virtual std::vector<NamedTensor> state() const = 0;

  // What the learning rate is multiplied by, where the optimizer finds that out by itself: 0-dim float64 on the device.
  // Undefined: always 1.
  virtual torch::Tensor learning_rate_factor() const { return {}; }

  // Steps done, a 0-dim float64 tensor on the device (skipped ones do not count).
  const torch::Tensor& step_count() const { return step_count_; }

 protected:
  // `params`: float32 (P), kept by reference and updated in place.
  explicit Optimizer(torch::Tensor params);

  // Counts the step. Returns 1, or 0 for a step that must change nothing (0-dim float64).
  torch::Tensor count_step(const torch::Tensor& found_inf);

  torch::Tensor params_;
  torch::Tensor step_count_;
  torch::Tensor update_;  // scratch (P)
};

// An optimizer with its state at zero. `weight_decay`: decoupled, e.g. 0.01. All other numbers are the optimizer's own.
std::unique_ptr<Optimizer> make_optimizer(OptimizerKind kind, double weight_decay, torch::Tensor params);

}  // namespace brushwork
