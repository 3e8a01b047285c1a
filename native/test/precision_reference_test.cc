// Whole trainings in half precision against diffusers + PEFT with the same rounding, and torch.amp.GradScaler
// (test/reference/lora_layers.py).
//
// Half precision rounds after every operation, so another order of operations (we run several layers as one) changes
// the last digits everywhere, and the optimizer carries them on. Measured, relative: bf16 (8 bits) loss 6.9e-4, weights
// 3.0e-2, first gradients 2.5e-2; fp16 (11 bits) loss 1.2e-4, weights 1.6e-3.
#include <functional>

#include "golden_comparison.h"

using namespace brushwork;
using namespace brushwork::test;

namespace {

constexpr double kHalfLossTolerance = 4e-4;
constexpr double kHalfWeightTolerance = 5e-3;

struct Run {
  std::vector<StepReport> reports;
  std::vector<float> loss_scales;  // before each micro-step; fp16 only
  double weight = 0;               // the largest difference of a final tensor
};

// Repeats the golden training `name` in `dtype`, with its configuration after `change`.
Run repeat_in(torch::Dtype dtype, const std::string& name, const std::function<void(TrainingConfig&)>& change = {}) {
  const auto training = golden_training(name);
  const auto model = load_golden_model(training, dtype);
  auto config = golden_config(training);
  if (change) change(config);
  Trainer trainer(model, config, golden_images(training), {}, empty_caption());
  Run run;
  auto state = trainer.state();
  if (state.loss_scale.defined()) {
    state.loss_scale.fill_(training["job"]["initial_loss_scale"].get<double>());
    run.loss_scales.push_back(state.loss_scale.item<float>());
  }
  trainer.train(config.epochs, [&](const StepReport& report) {
    run.reports.push_back(report);
    if (state.loss_scale.defined()) run.loss_scales.push_back(trainer.state().loss_scale.item<float>());
  });
  run.weight = worst_difference(trainer.result(), trainer.result().values().detach(), golden_lora(name), "final.");
  return run;
}

// Of the losses, relative.
double worst_loss(const Run& run, const Json& training) {
  double worst = 0;
  for (size_t i = 0; i < run.reports.size(); ++i) {
    worst = worse(worst, relative_error(run.reports[i].loss, training["losses"][i].get<double>()));
  }
  return worst;
}

// Of the first micro-step's gradients.
double worst_gradient(torch::Dtype dtype, const std::string& name) {
  const auto training = golden_training(name);
  return compare_gradients(load_golden_model(training, dtype), training, golden_config(training), golden_lora(name));
}

// Repeats an fp16 training, of whose optimizer steps `skipped` overflow.
void check_fp16(const std::string& name, int64_t skipped) {
  const auto training = golden_training(name);
  const auto scales = training["loss_scales"].get<std::vector<float>>();
  int64_t smaller = 0;
  for (size_t i = 1; i < scales.size(); ++i) smaller += scales[i] < scales[i - 1] ? 1 : 0;
  CHECK(smaller == skipped);

  const auto run = repeat_in(torch::kFloat16, name);
  for (size_t i = 0; i < scales.size(); ++i) {
    CHECK(run.loss_scales[i] == scales[i]);
    CHECK(std::abs(run.reports[i].learning_rate - training["learning_rates"][i].get<double>()) < 1e-15);
  }
  const double loss = worst_loss(run, training);
  std::printf("# %s: loss %.1e, weight %.1e\n", name.c_str(), loss, run.weight);
  CHECK_AT_MOST(loss, kHalfLossTolerance * device_slack());
  CHECK_AT_MOST(run.weight, kHalfWeightTolerance * device_slack());
}

}  // namespace

TEST(bf16_equals_peft) {
  const auto run = repeat_in(torch::kBFloat16, "bf16");
  const double loss = worst_loss(run, golden_training("bf16"));
  const double gradient = worst_gradient(torch::kBFloat16, "bf16");
  std::printf("# bf16: loss %.1e, weight %.1e, gradient %.1e\n", loss, run.weight, gradient);
  CHECK_AT_MOST(loss, 1.5e-3 * device_slack());
  CHECK_AT_MOST(run.weight, 5e-2 * device_slack());
  CHECK_AT_MOST(gradient, 5e-2 * device_slack());
}

// With a window of two micro-steps, a warm-up and an average. The scale is too large for the first four windows, and
// for a later one once it has grown tight: none of schedule, average and optimizer may hear of those.
TEST(fp16_equals_peft_and_grad_scaler) { check_fp16("fp16", 5); }

// With dropout, whose masks both sides draw, and clipping, which must see gradients without the scale. Both sides
// multiply 1 / (1 - dropout) into B: elsewhere it would move the edge of an overflow.
TEST(fp16_with_dropout_and_clipping_equals_peft_and_grad_scaler) {
  // A GPU draws its masks itself.
  if (test_device().is_cpu()) check_fp16("fp16_dropout", 4);
}

TEST(fp16_without_the_dropout_or_without_the_clipping_fails) {
  const auto training = golden_training("fp16_dropout");
  const auto undropped = repeat_in(torch::kFloat16, "fp16_dropout", [](auto& config) { config.dropout = 0; });
  CHECK(worst_loss(undropped, training) > kHalfLossTolerance && undropped.weight > kHalfWeightTolerance);
  const auto unclipped =
      repeat_in(torch::kFloat16, "fp16_dropout", [](auto& config) { config.max_grad_norm = std::nullopt; });
  CHECK(worst_loss(unclipped, training) > kHalfLossTolerance && unclipped.weight > kHalfWeightTolerance);
}

TEST(an_alpha_that_is_off_by_one_percent_fails_in_fp16) {
  const auto run = repeat_in(torch::kFloat16, "fp16", [](auto& config) { config.alpha *= 1.01; });
  CHECK(worst_loss(run, golden_training("fp16")) > kHalfLossTolerance);
  CHECK(run.weight > kHalfWeightTolerance);
}

TEST_MAIN()
