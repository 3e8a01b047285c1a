// The yardstick of the training recipe: a whole training against its golden files (test/reference/make_golden.py).
#pragma once

#include <algorithm>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "golden_training.h"

namespace brushwork::test {

// The recipe's own limits, relative: each loss, the 2-norm of each final tensor, that of each gradient of the first
// micro-step. Measured: at most 3.6e-7, 1.0e-5 (four levels: 2.4e-4) and 6.2e-6.
constexpr double kLossTolerance = 1e-5;
constexpr double kWeightTolerance = 2e-3;
constexpr double kGradientTolerance = 1e-4;

// How much wider the limits are on the test's device. A GPU sums in another order and has other approximations of exp
// and the like; ten is a guess, since no GPU has been tried.
inline double device_slack() { return test_device().is_cpu() ? 1.0 : 10.0; }

// The largest relative differences of a training.
struct Comparison {
  double loss = 0;
  double weight = 0;
  double gradient = 0;
  double learning_rate = 0;  // of the largest one
  bool same_timesteps = true;
};

// The largest difference, in the 2-norm, of the golden tensors below `prefix` and those that `flat` holds for them,
// times `factor`.
inline double worst_difference(const LoraParameters& lora, const torch::Tensor& flat, const SafetensorsFile& golden,
                               const std::string& prefix, double factor = 1.0) {
  double worst = 0;
  for (int64_t i = 0; i < lora.module_count(); ++i) {
    const auto key = prefix + lora.targets()[static_cast<size_t>(i)].name;
    for (const auto& [actual, side] : {std::pair{lora.view_a(flat, i), "A"}, std::pair{lora.view_b(flat, i), "B"}}) {
      const auto file_key = key + ".lora_" + side + ".weight";
      // The gradients of A are zero where B is, and not in the file.
      const bool is_zero = prefix == "gradient." && *side == 'A' && !golden.contains(file_key);
      const auto expected = is_zero ? torch::zeros_like(actual) : golden.tensor(file_key);
      worst = worse(worst, relative_error(actual * factor, expected));
    }
  }
  return worst;
}

// The gradients of the first micro-step, seen through a window that it does not end.
inline double compare_gradients(const BaseModel& model, const Json& training, TrainingConfig config,
                                const SafetensorsFile& golden) {
  const auto divisor = static_cast<double>(config.gradient_accumulation);
  config.gradient_accumulation = 1000;
  config.max_grad_norm = std::nullopt;
  Trainer trainer(model, config, golden_images(training), {}, empty_caption());
  draw_initial_b(trainer, training);
  bool done = false;
  trainer.train(1, [&](const StepReport&) { done = true; }, [&] { return done; });
  const auto& lora = trainer.lora();
  return worst_difference(lora, lora.gradients(), golden, "gradient.", 1000 / divisor);
}

// Repeats the golden training `name` with its alpha times `alpha_factor`.
inline Comparison repeat(const std::string& name, double alpha_factor = 1.0) {
  const auto training = golden_training(name);
  const auto golden = golden_lora(name);
  const auto model = load_golden_model(training);
  auto config = golden_config(training);
  config.alpha *= alpha_factor;

  Trainer trainer(model, config, golden_images(training), {}, empty_caption());
  draw_initial_b(trainer, training);
  std::vector<StepReport> reports;
  CHECK(!trainer.train(config.epochs, [&](const StepReport& report) { reports.push_back(report); }));
  CHECK(reports.size() == training["losses"].size());
  const auto golden_rates = training["learning_rates"].get<std::vector<double>>();
  const double largest_rate = *std::max_element(golden_rates.begin(), golden_rates.end());
  Comparison result;
  for (size_t i = 0; i < reports.size(); ++i) {
    const double expected = training["losses"][i].get<double>();
    result.loss = worse(result.loss, relative_error(reports[i].loss, expected));
    const double rate = golden_rates[i];
    result.learning_rate = worse(result.learning_rate, std::abs(reports[i].learning_rate - rate) / largest_rate);
    result.same_timesteps &= reports[i].timesteps == training["timesteps"][i].get<std::vector<int64_t>>();
  }
  const auto& lora = trainer.result();
  result.weight = worst_difference(lora, lora.values().detach(), golden, "final.");
  result.gradient = compare_gradients(model, training, config, golden);
  std::printf("# %s: loss %.1e, weight %.1e, gradient %.1e, learning rate %.1e\n", name.c_str(), result.loss,
              result.weight, result.gradient, result.learning_rate);
  return result;
}

inline void check_equals_reference(const std::string& name, double learning_rate_tolerance = 1e-12) {
  const auto result = repeat(name);
  CHECK(result.same_timesteps);
  CHECK_AT_MOST(result.loss, kLossTolerance * device_slack());
  CHECK_AT_MOST(result.weight, kWeightTolerance * device_slack());
  CHECK_AT_MOST(result.gradient, kGradientTolerance * device_slack());
  CHECK_AT_MOST(result.learning_rate, learning_rate_tolerance);
}

}  // namespace brushwork::test
