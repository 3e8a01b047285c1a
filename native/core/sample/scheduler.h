// Defines: SamplerKind, SampleScheduler, make_scheduler (how a picture comes out of noise, step by step).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/model_io/base_model.h"
#include "core/torch.h"

namespace brushwork {

enum class SamplerKind { kDdim, kDpmSolverPlusPlus };

// The steps of one picture. Make one for each picture: a scheduler may remember the steps before.
class SampleScheduler {
 public:
  virtual ~SampleScheduler() = default;

  // Training timesteps to visit, from noisy to clean.
  const std::vector<int64_t>& timesteps() const { return timesteps_; }

  // The sample one step cleaner than `sample` (B, C, H, W), from the UNet's `prediction` for it at `timestep`. To be
  // called once for each of `timesteps()`, in order.
  virtual torch::Tensor step(const torch::Tensor& prediction, int64_t timestep, const torch::Tensor& sample) = 0;

 protected:
  std::vector<int64_t> timesteps_;
};

// The scheduler of that kind. Throws INVALID_REQUEST for a step count outside its range.
std::unique_ptr<SampleScheduler> make_scheduler(SamplerKind kind, const SchedulerConfig& config, int64_t step_count);

}  // namespace brushwork
