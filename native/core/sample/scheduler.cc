#include "core/sample/scheduler.h"

#include "core/sample/ddim.h"
#include "core/sample/dpm_solver.h"

namespace brushwork {

std::unique_ptr<SampleScheduler> make_scheduler(SamplerKind kind, const SchedulerConfig& config, int64_t step_count) {
  if (kind == SamplerKind::kDdim) return std::make_unique<DdimScheduler>(config, step_count);
  return std::make_unique<DpmSolverScheduler>(config, step_count);
}

}  // namespace brushwork
