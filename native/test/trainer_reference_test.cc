// The yardstick of the training recipe: whole jobs against diffusers + PEFT (golden files of
// test/reference/make_golden.py).
#include <algorithm>

#include "check.h"
#include "core/train/trainer.h"
#include "golden.h"

using namespace brushwork;
using namespace brushwork::test;

namespace {

// The recipe's own limits, relative: each loss, and the 2-norm of each final tensor. Measured: 2e-7 and
// 1.1e-6.
constexpr double kLossTolerance = 1e-5;
constexpr double kWeightTolerance = 2e-3;

TrainingConfig config_of(const Json& run) {
  const auto& job = run["job"];
  TrainingConfig config{};
  config.seed = job["seed"].get<int64_t>();
  config.rank = job["rank"].get<int64_t>();
  config.alpha = job["alpha"].get<double>();
  config.dropout = 0.0;
  config.learning_rate = job["learning_rate"].get<double>();
  config.weight_decay = job["weight_decay"].get<double>();
  config.epochs = job["epochs"].get<int64_t>();
  config.batch_size = job["batch_size"].get<int64_t>();
  config.gradient_accumulation = job["gradient_accumulation"].get<int64_t>();
  if (!job["max_grad_norm"].is_null()) config.max_grad_norm = job["max_grad_norm"].get<double>();
  return config;
}

std::vector<TrainingImage> golden_images(const Json& golden) {
  const auto side_px = golden["sidePx"].get<int64_t>();
  std::vector<TrainingImage> images;
  for (int32_t i = 0; i < golden["imageCount"].get<int32_t>(); ++i) {
    images.push_back({"picture-" + std::to_string(i), side_px, side_px, picture(i, side_px, side_px), tokens(i)});
  }
  return images;
}

struct Comparison {
  double worst_loss = 0;    // relative difference
  double worst_weight = 0;  // relative difference in the 2-norm; 0 for jobs without golden weights
  bool same_timesteps = true;
};

// Runs the golden job `name` with its alpha times `alpha_factor`.
Comparison run_golden_job(const std::string& name, double alpha_factor = 1.0) {
  const auto golden = golden_json("tiny_training.json");
  const auto& run = golden["runs"][name];
  auto config = config_of(run);
  config.alpha *= alpha_factor;
  auto model = load_tiny_model();
  if (run["job"]["prediction_type"] == "v_prediction") model.scheduler.prediction_type = PredictionType::kVPrediction;

  Trainer trainer(model, config, golden_images(golden));
  std::vector<StepReport> reports;
  CHECK(!trainer.train(config.epochs, [&](const StepReport& report) { reports.push_back(report); }));
  CHECK(reports.size() == run["losses"].size());

  Comparison result;
  for (size_t i = 0; i < reports.size(); ++i) {
    const double expected = run["losses"][i].get<double>();
    result.worst_loss = std::max(result.worst_loss, std::abs(reports[i].loss / expected - 1.0));
    result.same_timesteps &= reports[i].timesteps == run["timesteps"][i].get<std::vector<int64_t>>();
  }
  if (name != "plain") return result;
  const auto expected = golden_tensors("tiny_final_lora.safetensors");
  for (int64_t i = 0; i < trainer.lora().module_count(); ++i) {
    const auto& module = trainer.lora().targets()[static_cast<size_t>(i)].name;
    for (const auto& [actual, side] : {std::pair{trainer.lora().a(i), "A"}, std::pair{trainer.lora().b(i), "B"}}) {
      const auto error = relative_error(actual, expected.tensor(module + ".lora_" + side + ".weight"));
      result.worst_weight = std::max(result.worst_weight, error);
    }
  }
  return result;
}

}  // namespace

TEST(hundred_steps_equal_peft) {
  const auto result = run_golden_job("plain");
  CHECK(result.same_timesteps);
  CHECK_AT_MOST(result.worst_loss, kLossTolerance);
  CHECK_AT_MOST(result.worst_weight, kWeightTolerance);
}

TEST(an_alpha_that_is_off_by_one_percent_fails) {
  const auto result = run_golden_job("plain", 1.01);
  CHECK(result.worst_loss > kLossTolerance);
  CHECK(result.worst_weight > kWeightTolerance);
}

TEST(gradient_accumulation_and_clipping_equal_peft) {
  const auto result = run_golden_job("accumulating");
  CHECK(result.same_timesteps);
  CHECK_AT_MOST(result.worst_loss, kLossTolerance);
}

TEST(v_prediction_equals_peft) {
  const auto result = run_golden_job("v_prediction");
  CHECK(result.same_timesteps);
  CHECK_AT_MOST(result.worst_loss, kLossTolerance);
}

TEST_MAIN()
