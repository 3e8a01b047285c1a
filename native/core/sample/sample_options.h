// Defines: SampleOptions, require_drawable.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/errors.h"
#include "core/sample/scheduler.h"

namespace brushwork {

// What to draw and how.
struct SampleOptions {
  std::vector<int32_t> token_ids;
  std::vector<int32_t> negative_token_ids;
  int64_t step_count;     // e.g. 20
  double guidance_scale;  // e.g. 7.5; 1 or less: no guidance, and the negative prompt is not used
  int64_t seed;           // of the initial noise
  int64_t width_px;
  int64_t height_px;
  SamplerKind sampler = SamplerKind::kDpmSolverPlusPlus;
};

// Throws INVALID_REQUEST with `rule`, what a picture must or why there is none, unless `valid`.
inline void require_drawable(bool valid, const std::string& rule) {
  if (!valid) throw Error(ErrorCode::kInvalidRequest, "The picture can't be drawn: " + rule);
}

}  // namespace brushwork
