// The numbers were printed by diffusers 0.42.1 from
//   s = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule='scaled_linear', clip_sample=False,
//                     set_alpha_to_one=False, steps_offset=1)
//   s.set_timesteps(30)
//   x = torch.arange(8, dtype=torch.float32).view(2, 4, 1, 1) / 4 - 1
//   e = torch.linspace(1, -1, 8).view(2, 4, 1, 1)
#include "core/sample/ddim.h"

#include "check.h"

using namespace brushwork;
using namespace brushwork::test;

static SchedulerConfig stable_diffusion() { return {1000, 0.00085, 0.012, "scaled_linear", PredictionType::kEpsilon}; }

// Float32 on both sides, but Python rounds the coefficients in tensors and we in scalars.
static void check_step(const SchedulerConfig& config, int64_t timestep, const std::vector<float>& expected) {
  const auto x = torch::arange(8, torch::kFloat32).view({2, 4, 1, 1}) / 4 - 1;
  const auto e = torch::linspace(1, -1, 8).view({2, 4, 1, 1});
  const auto next = DdimScheduler(config, 30).step(e, timestep, x);
  CHECK_AT_MOST(relative_error(next.flatten(), torch::tensor(expected)), 1e-6);
}

// s.set_timesteps(5); s.timesteps and, for 30, the first and last
TEST(timesteps_equal_diffusers) {
  CHECK((DdimScheduler(stable_diffusion(), 5).timesteps() == std::vector<int64_t>{801, 601, 401, 201, 1}));
  const auto thirty = DdimScheduler(stable_diffusion(), 30).timesteps();
  CHECK(thirty.size() == 30 && thirty[0] == 958 && thirty[1] == 925 && thirty[29] == 1);
}

// s.step(e, 925, x).prev_sample
TEST(a_step_equals_diffusers) {
  check_step(stable_diffusion(), 925,
             {-0x1.61625cp+0f, -0x1.074b24p+0f, -0x1.5a67d8p-1f, -0x1.4c72c8p-2f, 0x1.bea1d0p-6f, 0x1.844702p-2f,
              0x1.7651f2p-1f, 0x1.154030p+0f});
}

// s.step(e, 1, x).prev_sample
TEST(the_last_step_equals_diffusers) {
  check_step(stable_diffusion(), 1,
             {-0x1.0337c0p+0f, -0x1.849ac8p-1f, -0x1.02c614p-1f, -0x1.01e2bap-2f, 0x1.c6b300p-10f, 0x1.05701cp-2f,
              0x1.048cc4p-1f, 0x1.86617cp-1f});
}

// DDIMScheduler.from_config(s.config, prediction_type='v_prediction'), then the same as above at 925
TEST(a_step_of_a_v_prediction_model_equals_diffusers) {
  auto config = stable_diffusion();
  config.prediction_type = PredictionType::kVPrediction;
  check_step(config, 925,
             {-0x1.050a4ap+0f, -0x1.873258p-1f, -0x1.04501cp-1f, -0x1.02dbc0p-2f, 0x1.745ae8p-9f, 0x1.08ad2cp-2f,
              0x1.0738d2p-1f, 0x1.8a1b10p-1f});
}

TEST_MAIN()
