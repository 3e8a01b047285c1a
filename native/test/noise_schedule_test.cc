// The numbers were printed by diffusers 0.42.1 from
//   s = DDPMScheduler(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule='scaled_linear')
//   lat = torch.arange(8, dtype=torch.float32).view(2, 4, 1, 1) / 4 - 1
//   noise = torch.linspace(1, -1, 8).view(2, 4, 1, 1)
//   t = torch.tensor([10, 900])
#include "core/train/noise_schedule.h"

#include "check.h"

using brushwork::NoiseSchedule;
using brushwork::PredictionType;
using brushwork::SchedulerConfig;

static SchedulerConfig stable_diffusion() { return {1000, 0.00085, 0.012, "scaled_linear", PredictionType::kEpsilon}; }

static torch::Tensor latents() { return torch::arange(8, torch::kFloat32).view({2, 4, 1, 1}) / 4 - 1; }
static torch::Tensor noise() { return torch::linspace(1, -1, 8).view({2, 4, 1, 1}); }
static torch::Tensor timesteps() { return torch::tensor({10, 900}, torch::kInt64); }

// Float32 in the same order of operations; one unit in the last place is left to other vector widths.
static void check_close(const torch::Tensor& actual, const std::vector<float>& expected) {
  CHECK_AT_MOST(brushwork::test::relative_error(actual.flatten(), torch::tensor(expected)), 1e-7);
}

// [s.alphas_cumprod[t] for t in (0, 1, 499, 999)]
TEST(alphas_cumprod_equal_diffusers) {
  const NoiseSchedule schedule(stable_diffusion(), torch::kCPU);
  CHECK(schedule.alphas_cumprod().numel() == 1000);
  for (const auto& [t, expected] : std::vector<std::pair<int64_t, float>>{
           {0, 0x1.ff9096p-1f}, {1, 0x1.ff20a8p-1f}, {499, 0x1.1c5560p-2f}, {999, 0x1.31676cp-8f}}) {
    check_close(schedule.alphas_cumprod()[t].reshape({1}), {expected});
  }
}

// s.add_noise(lat, noise, t)
TEST(noisy_latents_equal_diffusers) {
  const NoiseSchedule schedule(stable_diffusion(), torch::kCPU);
  check_close(schedule.add_noise(latents(), noise(), timesteps()),
              {-0x1.cb75fap-1f, -0x1.5a6264p-1f, -0x1.d29d9cp-2f, -0x1.e0ece0p-3f, -0x1.227e6ep-3f, -0x1.95499cp-2f,
               -0x1.4caa00p-1f, -0x1.ceaf30p-1f});
}

TEST(epsilon_target_is_the_noise) {
  const NoiseSchedule schedule(stable_diffusion(), torch::kCPU);
  CHECK(schedule.target(latents(), noise(), timesteps()).equal(noise()));
}

// s.get_velocity(lat, noise, t)
TEST(velocity_target_equals_diffusers) {
  auto config = stable_diffusion();
  config.prediction_type = PredictionType::kVPrediction;
  const NoiseSchedule schedule(config, torch::kCPU);
  check_close(schedule.target(latents(), noise(), timesteps()),
              {0x1.17d068p+0f, 0x1.9185ecp-1f, 0x1.e6d60ap-2f, 0x1.55407cp-3f, -0x1.166e4ep-6f, -0x1.326354p-2f,
               -0x1.29afe2p-1f, -0x1.ba2e1ap-1f});
}

TEST(an_unknown_beta_schedule_is_refused) {
  auto config = stable_diffusion();
  config.beta_schedule = "squaredcos_cap_v2";
  CHECK_ERROR(NoiseSchedule(config, torch::kCPU), brushwork::ErrorCode::kModelLoadFailed, "squaredcos_cap_v2");
}

TEST_MAIN()
