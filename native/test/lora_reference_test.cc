// Every LoRA gradient of the first micro-step against PEFT (golden files of test/reference/make_golden.py).
#include "check.h"
#include "core/lora/lora_step.h"
#include "core/train/noise_schedule.h"
#include "core/train/random_streams.h"
#include "golden_training.h"

using namespace brushwork;
using namespace brushwork::test;

namespace {

// Both sides compute in float32 with other orders of summation; measured differences are at most 2.5e-6.
constexpr double kTolerance = 1e-4;

// The first micro-step of the golden job "plain", written out: its loss, with gradients left in `lora`.
double first_micro_step(const BaseModel& model, const Json& golden, LoraParameters& lora) {
  const auto& job = golden["job"];
  const auto seed = job["seed"].get<uint64_t>();
  const auto side_px = golden["width_px"].get<int64_t>();
  const auto chosen = draw_permutation(golden["image_count"].get<int64_t>(), {seed, RandomStream::kEpochOrder, 0})
                          .narrow(0, 0, job["batch_size"].get<int64_t>());
  std::vector<torch::Tensor> means, stds, states;
  for (int64_t i = 0; i < chosen.numel(); ++i) {
    const auto image = chosen[i].item<int64_t>();
    const auto posterior = model.vae.encode(pixels(image, side_px, side_px));
    means.push_back(posterior.mean);
    stds.push_back(posterior.std);
    states.push_back(model.text_encoder.encode(token_tensor(static_cast<int32_t>(image))));
  }
  const auto mean = torch::cat(means);
  const auto eps = draw_normal(mean.sizes(), {seed, RandomStream::kLatentSample, 0});
  const auto latents = (mean + torch::cat(stds) * eps) * model.vae.config().scaling_factor;
  const auto timesteps = draw_integers(1000, chosen.numel(), {seed, RandomStream::kTimestep, 0});
  const auto noise = draw_normal(mean.sizes(), {seed, RandomStream::kNoise, 0});
  const auto noisy = NoiseSchedule(model.scheduler, torch::kCPU).add_noise(latents, noise, timesteps);

  lora.initialize(
      [&](int64_t ordinal) { return make_generator({seed, RandomStream::kLoraInit, static_cast<uint64_t>(ordinal)}); });
  LoraStep step(lora, model.unet.dtype());
  const auto predicted = model.unet.forward(noisy, timesteps, model.unet.prepare_text(torch::cat(states)), &step);
  const auto loss = torch::mse_loss(predicted, noise);
  loss.backward();
  return loss.item<double>();
}

LoraConfig lora_config(const Json& golden) {
  const auto config = golden_config(golden);
  return {config.rank, config.alpha, config.dropout};
}

}  // namespace

TEST(module_names_and_shapes_equal_peft) {
  const auto model = load_tiny_model();
  const auto golden = golden_training("plain");
  const LoraParameters lora(model.unet.lora_layout(), lora_config(golden), torch::kCPU);
  const auto expected = golden_lora("plain");
  // A and B at the end, and B's gradient.
  CHECK(expected.entries().size() == 3 * static_cast<size_t>(lora.module_count()));
  for (int64_t i = 0; i < lora.module_count(); ++i) {
    const auto& name = lora.targets()[static_cast<size_t>(i)].name;
    CHECK(i == 0 || lora.targets()[static_cast<size_t>(i) - 1].name < name);
    CHECK(lora.a(i).sizes() == expected.tensor("final." + name + ".lora_A.weight").sizes());
    CHECK(lora.b(i).sizes() == expected.tensor("final." + name + ".lora_B.weight").sizes());
  }
}

TEST(first_gradients_equal_peft) {
  const auto model = load_tiny_model();
  const auto golden = golden_training("plain");
  LoraParameters lora(model.unet.lora_layout(), lora_config(golden), torch::kCPU);
  const double loss = first_micro_step(model, golden, lora);
  CHECK_AT_MOST(std::abs(loss / golden["losses"][0].get<double>() - 1.0), 1e-6);
  const auto expected = golden_lora("plain");
  for (int64_t i = 0; i < lora.module_count(); ++i) {
    const auto& name = lora.targets()[static_cast<size_t>(i)].name;
    // B is zero at first, so no gradient reaches A.
    CHECK(lora.a_gradient(i).count_nonzero().item<int64_t>() == 0);
    CHECK_AT_MOST(relative_error(lora.b_gradient(i), expected.tensor("gradient." + name + ".lora_B.weight")),
                  kTolerance);
  }
}

TEST(gradients_of_half_precision_stay_near) {
  const auto golden = golden_training("plain");
  const auto expected = golden_lora("plain");
  const auto model = load_tiny_model(torch::kBFloat16);
  LoraParameters lora(model.unet.lora_layout(), lora_config(golden), torch::kCPU);
  first_micro_step(model, golden, lora);
  CHECK(lora.gradients().scalar_type() == torch::kFloat32);
  double worst = 0;
  for (int64_t i = 0; i < lora.module_count(); ++i) {
    const auto& name = lora.targets()[static_cast<size_t>(i)].name;
    worst = worse(worst, relative_error(lora.b_gradient(i), expected.tensor("gradient." + name + ".lora_B.weight")));
  }
  CHECK_AT_MOST(worst, 0.1);  // measured 0.035
}

TEST(an_alpha_that_is_off_by_one_percent_shows) {
  const auto model = load_tiny_model();
  const auto golden = golden_training("plain");
  auto config = lora_config(golden);
  config.alpha *= 1.01;
  LoraParameters lora(model.unet.lora_layout(), config, torch::kCPU);
  first_micro_step(model, golden, lora);
  const auto expected = golden_lora("plain");
  for (int64_t i = 0; i < lora.module_count(); ++i) {
    const auto& name = lora.targets()[static_cast<size_t>(i)].name;
    CHECK(relative_error(lora.b_gradient(i), expected.tensor("gradient." + name + ".lora_B.weight")) > 10 * kTolerance);
  }
}

TEST_MAIN()
