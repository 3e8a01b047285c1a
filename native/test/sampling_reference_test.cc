// Schedulers and whole pictures against diffusers (golden file of test/reference/sampling_golden.py).
#include <string>

#include "check.h"
#include "core/sample/sample_picture.h"
#include "golden.h"

using namespace brushwork;
using namespace brushwork::test;

// Float32 on both sides, but Python rounds the coefficients in tensors and we in scalars. Measured: at most 5.8e-7.
constexpr double kWalkTolerance = 2e-6;
// The decoded pixels after six steps through UNet, guidance and VAE. Measured: at most 2.7e-6.
constexpr double kPictureTolerance = 1e-5;

static const SafetensorsFile& golden() {
  static const SafetensorsFile file = golden_tensors("sampling.safetensors");
  return file;
}

static SchedulerConfig stable_diffusion(PredictionType type) { return {1000, 0.00085, 0.012, "scaled_linear", type}; }

static void check_walk(SamplerKind kind, PredictionType type, const std::string& name) {
  const auto expected = golden().tensor("walk." + name + ".samples");
  const auto expected_timesteps = golden().tensor("walk." + name + ".timesteps");
  const auto scheduler = make_scheduler(kind, stable_diffusion(type), expected.size(0));
  CHECK(torch::equal(torch::tensor(scheduler->timesteps()), expected_timesteps));
  auto sample = randn(1, {1, 4, 2, 3});
  double worst = 0;
  for (int64_t i = 0; i < expected.size(0); ++i) {
    const auto prediction = randn(static_cast<uint64_t>(100 + i), sample.sizes());
    sample = scheduler->step(prediction, scheduler->timesteps()[static_cast<size_t>(i)], sample);
    worst = worse(worst, relative_error(sample[0], expected[i]));
  }
  std::printf("# %s: %.1e\n", name.c_str(), worst);
  CHECK_AT_MOST(worst, kWalkTolerance);
}

TEST(every_step_of_the_schedulers_equals_diffusers) {
  for (const std::string steps : {"1", "2", "5", "20"}) {
    check_walk(SamplerKind::kDdim, PredictionType::kEpsilon, "ddim.epsilon." + steps);
    check_walk(SamplerKind::kDdim, PredictionType::kVPrediction, "ddim.v_prediction." + steps);
    check_walk(SamplerKind::kDpmSolverPlusPlus, PredictionType::kEpsilon, "dpm++.epsilon." + steps);
    check_walk(SamplerKind::kDpmSolverPlusPlus, PredictionType::kVPrediction, "dpm++.v_prediction." + steps);
  }
}

static SampleOptions options(int64_t seed, int64_t width_px = 64) {
  return {.token_ids = tokens(1),
          .negative_token_ids = tokens(0),
          .step_count = 6,
          .guidance_scale = 5,
          .seed = seed,
          .width_px = width_px,
          .height_px = 64,
          .sampler = SamplerKind::kDpmSolverPlusPlus};
}

static void check_picture(const BaseModel& model, const std::string& name, const SampleOptions& options,
                          const LoraParameters* lora = nullptr) {
  const auto pixels = *sample_pixels(model, lora, options);
  const double error = relative_error(pixels, golden().tensor("picture." + name));
  std::printf("# picture %s: %.1e\n", name.c_str(), error);
  CHECK_AT_MOST(error, kPictureTolerance);
}

TEST(pictures_of_both_samplers_equal_diffusers) {
  auto ddim = options(11);
  ddim.sampler = SamplerKind::kDdim;
  check_picture(tiny_model(), "ddim", ddim);
  check_picture(tiny_model(), "dpm++", options(12));
}

TEST(a_picture_of_a_v_prediction_model_equals_diffusers) {
  auto model = load_tiny_model();
  model.scheduler.prediction_type = PredictionType::kVPrediction;
  check_picture(model, "v_prediction", options(13));
}

TEST(a_picture_without_guidance_equals_diffusers) {
  auto unguided = options(14);
  unguided.guidance_scale = 1;
  check_picture(tiny_model(), "unguided", unguided);
}

TEST(a_wide_picture_of_four_levels_equals_diffusers) {
  check_picture(load_random_model("small"), "four_levels", options(16, 128));
}

// The LoRA of the golden training `plain`, alpha 8 and rank 4, as sampling_golden.py gives it to diffusers.
TEST(a_picture_with_a_lora_file_equals_diffusers) {
  const auto trained = golden_tensors("training/plain.safetensors");
  std::map<std::string, torch::Tensor> tensors;
  for (const auto& [key, entry] : trained.entries()) {
    if (key.rfind("final.", 0) != 0) continue;
    const double scale = key.find("lora_B") == std::string::npos ? 1 : 2;
    tensors.emplace("unet." + key.substr(6), trained.tensor(key) * scale);
  }
  const auto file = temporary_directory() / "lora.safetensors";
  write_safetensors(file, tensors);
  const auto [model, lora] = load_with_lora(file);
  check_picture(model, "lora", options(15), &lora);
}

TEST_MAIN()
