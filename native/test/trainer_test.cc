#include "core/train/trainer.h"

#include <algorithm>

#include "check.h"
#include "core/train/random_streams.h"
#include "memory_use.h"
#include "tiny_job.h"

using namespace brushwork;
using namespace brushwork::test;

static std::vector<StepReport> train_steps(Trainer& trainer, int64_t count) {
  std::vector<StepReport> reports;
  trainer.train(
      trainer.config().epochs, [&](const StepReport& report) { reports.push_back(report); },
      after_steps(trainer, count));
  return reports;
}

TEST(a_step_equals_the_recipe_written_out) {
  auto config = tiny_config();
  config.dropout = 0;
  const auto& model = tiny_model();
  Trainer trainer(model, config, tiny_images(3));
  const auto report = train_steps(trainer, 1).at(0);

  const int64_t image = draw_permutation(3, {42, RandomStream::kEpochOrder, 0})[0].item<int64_t>();
  const auto timestep = draw_integers(1000, 1, {42, RandomStream::kTimestep, 0});
  CHECK(report.timesteps == std::vector<int64_t>{timestep.item<int64_t>()});
  const auto& latents_of_size = trainer.data().sizes.at(0);
  const auto mean = latents_of_size.latent_means[image].unsqueeze(0);
  const auto std = latents_of_size.latent_stds[image].unsqueeze(0);
  const auto latents = (mean + std * draw_normal(mean.sizes(), {42, RandomStream::kLatentSample, 0})) *
                       model.vae.config().scaling_factor;
  const auto noise = draw_normal(mean.sizes(), {42, RandomStream::kNoise, 0});
  const auto noisy = NoiseSchedule(model.scheduler, torch::kCPU).add_noise(latents, noise, timestep);
  const auto ids = torch::tensor(tiny_images(3)[static_cast<size_t>(image)].token_ids, torch::kInt64).unsqueeze(0);
  const auto text = model.unet.prepare_text(model.text_encoder.encode(ids));
  // The first LoRA is zero (B = 0), so the base model alone gives the loss.
  const double loss = torch::mse_loss(model.unet.forward(noisy, timestep, text), noise).item<double>();
  CHECK_AT_MOST(std::abs(report.loss / loss - 1), 1e-6);
  CHECK(report.step == 0 && report.epoch == 0 && report.learning_rate == config.learning_rate);
}

TEST(the_initial_lora_follows_stream_1) {
  Trainer trainer(tiny_model(), tiny_config(), tiny_images(1));
  const auto& lora = trainer.lora();
  for (int64_t i = 0; i < lora.module_count(); ++i) {
    const auto bound = 1.0 / std::sqrt(static_cast<double>(lora.a(i).size(1)));
    CHECK(lora.a(i).equal(
        draw_uniform(lora.a(i).sizes(), -bound, bound, {42, RandomStream::kLoraInit, static_cast<uint64_t>(i)})));
    CHECK(lora.b(i).count_nonzero().item<int64_t>() == 0);
  }
}

TEST(images_are_trained_in_the_epochs_order_and_the_last_batch_is_short) {
  auto config = tiny_config();
  config.batch_size = 2;
  Trainer trainer(tiny_model(), config, tiny_images(5));
  CHECK(trainer.micro_steps_per_epoch() == 3);
  const auto reports = train_steps(trainer, 4);
  CHECK(reports[1].timesteps.size() == 2 && reports[2].timesteps.size() == 1);
  CHECK(reports[2].epoch == 0 && reports[3].epoch == 1 && reports[3].step == 3);
}

TEST(the_order_of_the_given_images_does_not_matter) {
  Trainer sorted(tiny_model(), tiny_config(), tiny_images(4));
  auto images = tiny_images(4);
  std::reverse(images.begin(), images.end());
  Trainer reversed(tiny_model(), tiny_config(), images);
  train_steps(sorted, 5);
  train_steps(reversed, 5);
  CHECK(sorted.lora().values().equal(reversed.lora().values()));
}

TEST(pictures_of_several_sizes_are_trained_size_by_size) {
  auto config = tiny_config();
  config.batch_size = 2;
  Trainer trainer(tiny_model(), config, mixed_images(5));
  const auto& data = trainer.data();
  CHECK(data.sizes.size() == 2 && data.image_count() == 5);
  CHECK(data.sizes[0].width_px == 32 && data.sizes[0].image_count == 2 && data.sizes[1].image_count == 3);
  CHECK((data.size_of_image == std::vector<int64_t>{1, 0, 1, 0, 1}));
  CHECK((data.row_of_image == std::vector<int64_t>{0, 0, 1, 1, 2}));
  CHECK(trainer.micro_steps_per_epoch() == 3);
  // Each latent is that of its picture.
  for (size_t i = 0; i < 5; ++i) {
    const Trainer alone(tiny_model(), config, {mixed_images(5)[i]});
    const auto& latents = data.sizes[static_cast<size_t>(data.size_of_image[i])].latent_means;
    CHECK(latents[data.row_of_image[i]].equal(alone.data().sizes[0].latent_means[0]));
  }
  const auto reports = train_steps(trainer, 6);
  for (const auto& report : reports) CHECK(std::isfinite(report.loss) && report.epoch == report.step / 3);
  int64_t pictures = 0;
  for (size_t i = 0; i < 3; ++i) pictures += static_cast<int64_t>(reports[i].timesteps.size());
  CHECK(pictures == 5);
}

TEST(repeats_train_as_copies_would_and_are_encoded_once) {
  auto config = tiny_config();
  config.batch_size = 3;
  config.gradient_accumulation = 2;
  auto copies = mixed_images(4);
  for (const auto& image : mixed_images(4)) {
    copies.push_back(image);
    copies.back().name += "-again";
  }
  Trainer expected(tiny_model(), config, copies);
  config.repeats = 2;
  Trainer repeating(tiny_model(), config, mixed_images(4));
  CHECK(repeating.data().sizes[0].latent_means.size(0) == 2 && expected.data().sizes[0].latent_means.size(0) == 4);
  CHECK(repeating.batches().image_count() == 8 && repeating.micro_steps_per_epoch() == 4);
  train_steps(expected, 7);
  train_steps(repeating, 7);
  CHECK(repeating.lora().values().equal(expected.lora().values()));
}

TEST(equal_captions_are_encoded_once) {
  const Trainer trainer(tiny_model(), tiny_config(), tiny_images(5));
  CHECK(trainer.data().captions.states.size(0) == 3);
  CHECK((trainer.data().caption_of_image == std::vector<int64_t>{0, 1, 0, 2, 0}));
}

TEST(training_lowers_the_loss) {
  auto config = tiny_config();
  config.learning_rate = 1e-2;
  Trainer trainer(tiny_model(), config, tiny_images(1));
  const auto mean_of = [](const std::vector<StepReport>& reports) {
    double sum = 0;
    for (const auto& report : reports) sum += report.loss;
    return sum / static_cast<double>(reports.size());
  };
  const double before = mean_of(train_steps(trainer, 10));
  train_steps(trainer, 40);
  CHECK_AT_MOST(mean_of(train_steps(trainer, 10)), 0.9 * before);
}

TEST(the_optimizer_steps_at_the_windows_and_the_epochs_end) {
  auto config = tiny_config();
  config.gradient_accumulation = 2;
  Trainer trainer(tiny_model(), config, tiny_images(3));
  const int64_t expected[] = {0, 1, 2, 2, 3, 4};
  for (const int64_t optimizer_steps : expected) {
    train_steps(trainer, 1);
    CHECK(trainer.position().optimizer_steps_run == optimizer_steps);
  }
  CHECK(trainer.position().epochs_run == 2);
}

TEST(accumulated_gradients_are_the_mean_over_the_window) {
  auto config = tiny_config();
  config.gradient_accumulation = 2;
  Trainer accumulating(tiny_model(), config, tiny_images(3));
  train_steps(accumulating, 1);
  config.gradient_accumulation = 4;
  Trainer halved(tiny_model(), config, tiny_images(3));
  train_steps(halved, 1);
  CHECK_AT_MOST(relative_error(halved.lora().gradients() * 2, accumulating.lora().gradients()), 1e-6);
}

TEST(gradient_checkpointing_changes_no_bit) {
  auto config = tiny_config();
  config.batch_size = 2;
  config.gradient_accumulation = 2;
  CHECK(config.dropout > 0);
  Trainer plain(tiny_model(), config, tiny_images(5));
  config.gradient_checkpointing = true;
  Trainer checkpointing(tiny_model(), config, tiny_images(5));
  const auto expected = train_steps(plain, 20), actual = train_steps(checkpointing, 20);
  for (size_t i = 0; i < expected.size(); ++i) CHECK(actual[i].loss == expected[i].loss);
  CHECK(checkpointing.lora().gradients().equal(plain.lora().gradients()));
  CHECK(checkpointing.lora().values().equal(plain.lora().values()));
}

// On the CPU, where libtorch says what it hands out. Measured: 46 % of the peak without it.
TEST(gradient_checkpointing_saves_memory) {
  const auto model = load_base_model(random_model_directory("tiny"), {});
  const auto peak_bytes = [&](bool gradient_checkpointing) {
    auto config = tiny_config();
    config.batch_size = 4;
    config.gradient_checkpointing = gradient_checkpointing;
    Trainer trainer(model, config, tiny_images(4));
    return peak_allocated_bytes([&] { train_steps(trainer, 2); });
  };
  const auto plain = peak_bytes(false), checkpointing = peak_bytes(true);
  std::printf("# peak of a step: %ld KiB, with gradient checkpointing %ld KiB\n", plain / 1024, checkpointing / 1024);
  CHECK(checkpointing < 0.6 * static_cast<double>(plain));
}

TEST(training_stops_at_the_next_step) {
  Trainer trainer(tiny_model(), tiny_config(), tiny_images(3));
  bool stop = false;
  int64_t steps = 0;
  const bool stopped = trainer.train(
      10,
      [&](const StepReport& report) {
        steps = report.step + 1;
        stop = report.step == 4;
      },
      [&] { return stop; });
  CHECK(stopped && steps == 5 && trainer.position().micro_steps_run == 5);
}

TEST(training_to_an_epoch_ends_there) {
  Trainer trainer(tiny_model(), tiny_config(), tiny_images(3));
  CHECK(!trainer.train(2, nullptr));
  CHECK(trainer.position().epochs_run == 2 && trainer.position().micro_steps_run == 6);
  CHECK(!trainer.train(2, [](const StepReport&) { CHECK(false); }));
}

TEST(dropout_changes_the_result_and_is_reproducible) {
  Trainer first(tiny_model(), tiny_config(), tiny_images(2));
  Trainer second(tiny_model(), tiny_config(), tiny_images(2));
  auto config = tiny_config();
  config.dropout = 0;
  Trainer without(tiny_model(), config, tiny_images(2));
  for (auto* trainer : {&first, &second, &without}) train_steps(*trainer, 3);
  CHECK(first.lora().values().equal(second.lora().values()));
  CHECK(!first.lora().values().equal(without.lora().values()));
}

TEST(a_loss_that_is_not_finite_ends_the_run) {
  Trainer trainer(tiny_model(), tiny_config(), tiny_images(2));
  auto state = trainer.state();
  state.params = torch::full_like(state.params, NAN);
  trainer.set_state(state);
  CHECK_ERROR(trainer.train(1, nullptr), ErrorCode::kLossNotFinite, "micro-step 0 (epoch 0)");
  CHECK_ERROR(trainer.state(), ErrorCode::kLossNotFinite, "Lower the learning rate");
}

// The loss is measured before the step: no later one tells what the last step of a run did.
TEST(a_lora_that_is_not_finite_after_the_last_step_ends_the_run) {
  auto config = tiny_config();
  config.epochs = 1;
  Trainer trainer(tiny_model(), config, tiny_images(1));
  trainer.state().optimizer.at(0).tensor.fill_(NAN);
  CHECK_ERROR(trainer.train(1, [](const StepReport&) { CHECK(false); }), ErrorCode::kLossNotFinite, "the LoRA became");
  CHECK_ERROR(trainer.state(), ErrorCode::kLossNotFinite, "micro-step 0 (epoch 0)");
}

TEST(fp16_skips_a_non_finite_step_and_halves_the_scale) {
  const auto model = load_tiny_model(torch::kFloat16);
  Trainer trainer(model, tiny_config(), tiny_images(2));
  auto state = trainer.state();
  const auto before = state.params.clone();
  // 2^100 overflows every half-precision gradient.
  state.loss_scale = torch::full({}, std::pow(2.0, 100), torch::kFloat32);
  trainer.set_state(state);
  train_steps(trainer, 1);
  CHECK(trainer.position().optimizer_steps_run == 0);
  CHECK(trainer.lora().values().equal(before));
  CHECK(trainer.state().loss_scale.item<float>() == static_cast<float>(std::pow(2.0, 99)));
}

TEST(fp16_with_a_collapsed_scale_is_a_diverged_loss) {
  const auto model = load_tiny_model(torch::kFloat16);
  Trainer trainer(model, tiny_config(), tiny_images(2));
  auto state = trainer.state();
  state.params = torch::full_like(state.params, NAN);
  state.loss_scale = torch::full({}, 1.0f);
  trainer.set_state(state);
  CHECK_ERROR(trainer.train(1, nullptr), ErrorCode::kLossNotFinite, "bf16");
}

// Both precisions train the same recipe: they stay near float32 (bf16 has 8 bits of mantissa, fp16 11).
// Measured: 1.2e-4 and 1.3e-3.
TEST(half_precisions_follow_float32) {
  auto config = tiny_config();
  config.dropout = 0;
  Trainer full(tiny_model(), config, tiny_images(2));
  const auto expected = train_steps(full, 10);
  for (const auto& [dtype, tolerance] :
       std::vector<std::pair<torch::Dtype, double>>{{torch::kFloat16, 6e-4}, {torch::kBFloat16, 5e-3}}) {
    const auto model = load_tiny_model(dtype);
    Trainer trainer(model, config, tiny_images(2));
    const auto reports = train_steps(trainer, 10);
    for (size_t i = 0; i < 10; ++i) CHECK_AT_MOST(std::abs(reports[i].loss / expected[i].loss - 1), tolerance);
  }
}

TEST(mirrored_pictures_are_encoded_by_themselves) {
  auto config = tiny_config();
  Trainer plain(tiny_model(), config, tiny_images(3));
  config.flip = true;
  Trainer flipping(tiny_model(), config, tiny_images(3));
  const auto& means = flipping.data().sizes.at(0).latent_means;
  const auto& plain_means = plain.data().sizes.at(0).latent_means;
  CHECK(plain_means.size(0) == 3 && means.size(0) == 6);
  CHECK(means.narrow(0, 0, 3).equal(plain_means));
  CHECK(flipping.data().image_count() == 3 && flipping.micro_steps_per_epoch() == 3);
  auto mirrored = tiny_images(3);
  for (auto& image : mirrored) {
    auto pixels = torch::from_blob(image.pixels.data(), {image.height_px, image.width_px, 3}, torch::kUInt8);
    pixels.copy_(pixels.flip(1).clone());
  }
  const Trainer mirror(tiny_model(), tiny_config(), mirrored);
  CHECK(means.narrow(0, 3, 3).equal(mirror.data().sizes.at(0).latent_means));
  CHECK(!means.narrow(0, 3, 3).equal(means.narrow(0, 0, 3).flip(3)));
}

TEST(the_empty_caption_is_encoded_only_where_it_is_needed) {
  auto config = tiny_config();
  std::vector<int32_t> empty(77, 1023);
  empty[0] = 1022;
  const Trainer without(tiny_model(), config, tiny_images(3), {}, empty);
  CHECK(without.data().captions.states.size(0) == 2 && without.data().empty_caption == -1);
  config.caption_dropout = 0.5;
  const Trainer with(tiny_model(), config, tiny_images(3), {}, empty);
  CHECK(with.data().captions.states.size(0) == 3 && with.data().empty_caption == 2);
  CHECK_ERROR(Trainer(tiny_model(), config, tiny_images(3)), ErrorCode::kInvalidRequest, "empty caption");
  empty.pop_back();
  CHECK_ERROR(Trainer(tiny_model(), config, tiny_images(3), {}, empty), ErrorCode::kInvalidRequest,
              "The empty caption");
}

TEST(a_caption_dropout_of_one_trains_on_the_empty_caption_alone) {
  auto config = tiny_config();
  auto captionless = tiny_images(3);
  for (auto& image : captionless) image.token_ids = tiny_images(1)[0].token_ids;
  Trainer expected(tiny_model(), config, captionless);
  config.caption_dropout = 1.0;
  Trainer dropping(tiny_model(), config, tiny_images(3), {}, captionless[0].token_ids);
  train_steps(expected, 4);
  train_steps(dropping, 4);
  CHECK(dropping.lora().values().equal(expected.lora().values()));
}

TEST(the_result_is_the_moving_average_of_the_lora) {
  auto config = tiny_config();
  config.ema_decay = 0.25;
  Trainer trainer(tiny_model(), config, tiny_images(2));
  CHECK(trainer.result().values().equal(trainer.lora().values()));
  torch::Tensor average;
  for (int64_t step = 1; step <= 6; ++step) {
    train_steps(trainer, 1);
    const auto values = trainer.lora().values().detach();
    // The decay of step n is n / (n + 9) until that is above 0.25, and 0 for the first.
    const double n = static_cast<double>(step);
    const double decay = step == 1 ? 0.0 : std::min(0.25, n / (n + 9));
    average = step == 1 ? values.clone() : average * decay + values * (1 - decay);
    CHECK_AT_MOST(relative_error(trainer.result().values(), average), 1e-6);
  }
  CHECK(!trainer.result().values().equal(trainer.lora().values()));
  Trainer plain(tiny_model(), tiny_config(), tiny_images(2));
  train_steps(plain, 6);
  CHECK(plain.lora().values().equal(trainer.lora().values()));
  CHECK(&plain.result() == &plain.lora());
}

TEST(a_skipped_fp16_step_advances_neither_the_schedule_nor_the_average) {
  const auto model = load_tiny_model(torch::kFloat16);
  auto config = tiny_config();
  config.lr_warmup_steps = 10;
  config.ema_decay = 0.9;
  Trainer trainer(model, config, tiny_images(2));
  CHECK(train_steps(trainer, 4)[0].learning_rate == 0.0);
  CHECK(trainer.position().optimizer_steps_run == 4);
  auto state = trainer.state();
  const auto average = trainer.result().values().detach().clone();
  state.loss_scale = torch::full({}, std::pow(2.0, 100), torch::kFloat32);
  trainer.set_state(state);
  const auto skipped = train_steps(trainer, 1)[0];
  CHECK(trainer.position().optimizer_steps_run == 4);
  CHECK(!average.equal(trainer.lora().values()));
  CHECK(trainer.result().values().equal(average));
  state = trainer.state();
  state.loss_scale = torch::full({}, 1024.0f);
  trainer.set_state(state);
  const auto next = train_steps(trainer, 1)[0];
  CHECK(skipped.learning_rate == config.learning_rate * 0.4 && next.learning_rate == skipped.learning_rate);
  CHECK(trainer.position().optimizer_steps_run == 5);
}

TEST(numbers_out_of_range_are_refused) {
  const auto refuse = [](const char* key, const std::function<void(TrainingConfig&)>& change) {
    auto config = tiny_config();
    change(config);
    CHECK_ERROR(Trainer(tiny_model(), config, tiny_images(1)), ErrorCode::kInvalidRequest, key);
  };
  refuse("seed", [](auto& config) { config.seed = -1; });
  refuse("seed", [](auto& config) { config.seed = 1LL << 53; });
  refuse("epochs", [](auto& config) { config.epochs = 0; });
  refuse("batch_size", [](auto& config) { config.batch_size = 0; });
  refuse("gradient_accumulation", [](auto& config) { config.gradient_accumulation = 0; });
  refuse("learning_rate", [](auto& config) { config.learning_rate = NAN; });
  refuse("weight_decay", [](auto& config) { config.weight_decay = -0.1; });
  refuse("max_grad_norm", [](auto& config) { config.max_grad_norm = 0.0; });
  refuse("lr_warmup_steps", [](auto& config) { config.lr_warmup_steps = -1; });
  refuse("min_snr_gamma", [](auto& config) { config.min_snr_gamma = 0.0; });
  refuse("noise_offset", [](auto& config) { config.noise_offset = -0.1; });
  refuse("ema_decay", [](auto& config) { config.ema_decay = 1.0; });
  refuse("caption_dropout", [](auto& config) { config.caption_dropout = 1.1; });
  refuse("repeats", [](auto& config) { config.repeats = 0; });
  refuse("rank", [](auto& config) { config.rank = 0; });
  refuse("dropout", [](auto& config) { config.dropout = 1.0; });
  Trainer trainer(tiny_model(), tiny_config(), tiny_images(1));
  CHECK_ERROR(trainer.train(101, nullptr), ErrorCode::kInvalidRequest, "101");
}

TEST(unusable_images_are_refused) {
  const auto refuse = [](ErrorCode code, const char* part,
                         const std::function<void(std::vector<TrainingImage>&)>& change) {
    auto images = tiny_images(2);
    change(images);
    CHECK_ERROR(Trainer(tiny_model(), tiny_config(), images), code, part);
  };
  refuse(ErrorCode::kInvalidRequest, "at least one", [](auto& images) { images.clear(); });
  refuse(ErrorCode::kInvalidRequest, "picture-0.png", [](auto& images) { images[1].name = images[0].name; });
  refuse(ErrorCode::kImageInvalid, "picture-1.png", [](auto& images) { images[1].pixels.pop_back(); });
  refuse(ErrorCode::kImageInvalid, "0 bytes of pixels", [](auto& images) {
    images[1].pixels.clear();
    images[1].width_px = images[1].height_px = int64_t{1} << 40;
  });
  refuse(ErrorCode::kImageInvalid, "multiples", [](auto& images) { images[0].width_px = 63; });
  refuse(ErrorCode::kInvalidRequest, "exactly 77", [](auto& images) { images[0].token_ids.pop_back(); });
  refuse(ErrorCode::kInvalidRequest, "token id 1024", [](auto& images) { images[0].token_ids[3] = 1024; });
}

TEST_MAIN()
