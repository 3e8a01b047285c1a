// The loss on held-out pictures: against diffusers + PEFT (test/reference/validation_golden.py), and what it must not
// depend on.
#include "core/train/validation.h"

#include <algorithm>
#include <cstdio>
#include <vector>

#include "core/train/checkpoint.h"
#include "golden_comparison.h"
#include "tiny_job.h"

using namespace brushwork;
using namespace brushwork::test;

namespace {

// Against the record `name`: the losses of its training and those on held-out pictures between its epochs.
void check_losses_equal_reference(const std::string& name) {
  const auto training = golden_training(name);
  const auto model = load_golden_model(training);
  const auto config = golden_config(training);
  Trainer trainer(model, config, golden_images(training));
  // Three samples at once do not divide eight.
  auto in_threes = config;
  in_threes.batch_size = 3;
  const Validation validation(model, in_threes, golden_images(training, /*held_out=*/true),
                              trainer.trained_text_encoder());
  CHECK(validation.image_count() == 2);
  const auto difference = [](double actual, const Json& expected) {
    return relative_error(actual, expected.get<double>());
  };
  double worst_of_training = 0, worst = 0;
  int64_t steps = 0;
  for (const auto& expected : training["validation"]) {
    trainer.train(expected["epoch"].get<int64_t>(), [&](const StepReport& report) {
      worst_of_training = worse(worst_of_training, difference(report.loss, training["losses"].at(steps++)));
    });
    worst = worse(worst, difference(validation.loss(trainer.result()).value(), expected["loss"]));
  }
  CHECK(steps == static_cast<int64_t>(training["losses"].size()));
  std::printf("# %s: loss on held-out pictures %.1e, of training %.1e\n", name.c_str(), worst, worst_of_training);
  CHECK_AT_MOST(worst, kLossTolerance * device_slack());
  CHECK_AT_MOST(worst_of_training, kLossTolerance * device_slack());
}

// Two pictures, measured in batches of this size.
Validation tiny_validation(const BaseModel& model, int64_t batch_size = 1, int64_t seed = 42) {
  auto config = tiny_config();
  config.batch_size = batch_size;
  config.seed = seed;
  const auto images = tiny_images(6);
  return {model, config, {images[4], images[5]}, nullptr};
}

// Trained far enough for every part of the LoRA to count.
Trainer trained(const BaseModel& model, int64_t epochs = 3) {
  Trainer trainer(model, tiny_config(), tiny_images(3));
  trainer.train(epochs, {});
  return trainer;
}

}  // namespace

TEST(the_loss_equals_the_reference) { check_losses_equal_reference("validation"); }

TEST(the_loss_of_an_average_and_v_prediction_equals_the_reference) {
  check_losses_equal_reference("validation_v_prediction");
}

// Captions are read with the average of the text encoder's LoRA.
TEST(the_loss_of_both_networks_equals_the_reference) {
  check_losses_equal_reference("validation_text_encoder");
  check_equals_reference("validation_text_encoder");
}

TEST(the_loss_on_pictures_of_several_sizes_equals_the_reference) {
  check_losses_equal_reference("validation_sizes");
  check_equals_reference("validation_sizes");
}

TEST(timesteps_are_the_middles_of_equal_parts) {
  CHECK((validation_timesteps(1000, 8) == std::vector<int64_t>{62, 187, 312, 437, 562, 687, 812, 937}));
  CHECK((validation_timesteps(3, 4) == std::vector<int64_t>{0, 1, 1, 2}));
}

TEST(measuring_twice_gives_the_same_bits_and_a_resumed_run_too) {
  const auto model = load_random_model("tiny");
  const auto trainer = trained(model);
  const auto validation = tiny_validation(model, 1);
  const double loss = validation.loss(trainer.result()).value();
  CHECK(validation.loss(trainer.result()).value() == loss);

  const auto file = temporary_directory() / "validated";
  save_checkpoint(trainer, file);
  Trainer resumed(model, tiny_config(), tiny_images(3));
  restore_checkpoint(resumed, file);
  CHECK(tiny_validation(model, 1).loss(resumed.result()).value() == loss);
}

TEST(training_is_the_same_bits_with_measurements_in_between) {
  const auto model = load_random_model("tiny");
  const auto validation = tiny_validation(model, 2);
  Trainer measured(model, tiny_config(), tiny_images(3));
  for (int64_t epoch = 1; epoch <= 3; ++epoch) {
    validation.loss(measured.result());
    measured.train(epoch, {});
  }
  const auto undisturbed = trained(model);
  CHECK(torch::equal(measured.lora().values(), undisturbed.lora().values()));
}

TEST(dropout_does_not_count) {
  const auto model = load_random_model("tiny");
  auto config = tiny_config();
  const auto trainer = trained(model);
  config.dropout = 0;
  Trainer without(model, config, tiny_images(3));
  without.set_state(trainer.state());
  const auto validation = tiny_validation(model, 1);
  CHECK(validation.loss(without.result()).value() == validation.loss(trainer.result()).value());
}

TEST(batches_change_the_last_digits_only) {
  const auto model = load_random_model("tiny");
  const auto trainer = trained(model);
  const double one = tiny_validation(model, 1).loss(trainer.result()).value();
  for (const int64_t batch_size : {3, 8, 16}) {
    const double other = tiny_validation(model, batch_size).loss(trainer.result()).value();
    CHECK_AT_MOST(std::abs(other / one - 1.0), 1e-6);
  }
}

// bfloat16 has 8 bits of significand; the error itself is computed in float32. Measured: 2.0e-4.
TEST(half_precision_measures_nearly_the_same) {
  const auto exact = load_random_model("tiny"), rounded = load_random_model("tiny", torch::kBFloat16);
  const auto trainer = trained(exact, 1);
  const double expected = tiny_validation(exact, 1).loss(trainer.result()).value();
  const double loss = tiny_validation(rounded, 1).loss(trainer.result()).value();
  CHECK(loss != expected);
  CHECK_AT_MOST(std::abs(loss / expected - 1.0), 1e-3);
}

// In half precision the trainer's copy of the text encoder is the only one.
TEST(captions_are_read_with_the_trainers_text_encoder) {
  const auto model = load_random_model("tiny", torch::kBFloat16);
  auto config = tiny_config();
  config.train_text_encoder = true;
  Trainer trainer(model, config, tiny_images(3));
  trainer.train(2, {});
  const auto images = tiny_images(4);
  const auto copy = model.text_encoder.to(torch::kBFloat16);
  const auto loss_with = [&](const ClipText* text_encoder) {
    return Validation(model, config, {images[3]}, text_encoder).loss(trainer.result()).value();
  };
  const double loss = loss_with(trainer.trained_text_encoder());
  CHECK(loss == loss_with(&copy));
  CHECK(loss != loss_with(nullptr));
}

TEST(another_seed_draws_another_noise) {
  const auto model = load_random_model("tiny");
  const auto trainer = trained(model, 1);
  const double one = tiny_validation(model, 1).loss(trainer.result()).value();
  CHECK(tiny_validation(model, 1, 43).loss(trainer.result()).value() != one);
}

TEST(it_can_be_stopped_between_two_passes) {
  const auto model = load_random_model("tiny");
  const auto trainer = trained(model, 1);
  int passes = 0;
  const auto stop = [&] { return ++passes > 3; };
  CHECK(!tiny_validation(model, 1).loss(trainer.result(), stop).has_value());
  CHECK(passes == 4);
}

TEST(no_pictures_are_refused) {
  const auto model = load_random_model("tiny");
  CHECK_ERROR(Validation(model, tiny_config(), {}, nullptr), ErrorCode::kInvalidRequest, "picture");
  CHECK_ERROR(tiny_validation(model, 0), ErrorCode::kInvalidRequest, "batch_size");
}

TEST_MAIN()
