// The text encoder's LoRA: one buffer with the UNet's, dropout, checkpoints, and what does not change without it.
#include <functional>

#include "check.h"
#include "core/model_io/safetensors.h"
#include "core/sample/sample_picture.h"
#include "core/train/checkpoint.h"
#include "core/train/random_streams.h"
#include "tiny_job.h"

using namespace brushwork;
using namespace brushwork::test;

namespace {

TrainingConfig text_config() {
  auto config = tiny_config();
  config.train_text_encoder = true;
  return config;
}

std::vector<double> train_steps(Trainer& trainer, int64_t count) {
  std::vector<double> losses;
  trainer.train(
      trainer.config().epochs, [&](const StepReport& report) { losses.push_back(report.loss); },
      after_steps(trainer, count));
  return losses;
}

LoraLayout joint_layout(const BaseModel& model) {
  return join_layouts(model.unet.lora_layout(), model.text_encoder.lora_layout());
}

LoraParameters random_lora(const BaseModel& model) {
  LoraParameters lora(joint_layout(model), {4, 8.0, 0.0}, torch::kCPU);
  const torch::NoGradGuard no_grad;
  lora.values().copy_(0.2 * torch::randn({lora.parameter_count()}, make_generator(5)));
  return lora;
}

torch::Tensor some_ids() {
  auto ids = torch::full({2, 77}, 1023, torch::kInt64);
  ids.index_put_({0, 1}, 5);
  ids.index_put_({1, 1}, 7);
  return ids;
}

// The L2 norm of what the text encoder's part of `flat` holds.
double text_norm(const LoraParameters& lora, const torch::Tensor& flat) {
  double sum = 0;
  for (int64_t i = lora.layout().text_encoder->target; i < lora.module_count(); ++i) {
    for (const auto& side : {lora.view_a(flat, i), lora.view_b(flat, i)}) sum += side.square().sum().item<double>();
  }
  return std::sqrt(sum);
}

}  // namespace

TEST(the_unets_modules_keep_their_places_and_ordinals) {
  const auto& model = tiny_model();
  const auto alone = model.unet.lora_layout(), joint = joint_layout(model);
  CHECK(joint.text_encoder->target == static_cast<int64_t>(alone.targets.size()));
  for (size_t i = 0; i < alone.targets.size(); ++i) CHECK(joint.targets[i].name == alone.targets[i].name);
  CHECK(joint.targets[alone.targets.size()].name == "text_model.encoder.layers.0.self_attn.k_proj");
  CHECK(joint.targets.back().name == "text_model.encoder.layers.1.self_attn.v_proj");

  auto seen = torch::zeros({LoraParameters(joint, {4, 8.0, 0.0}, torch::kCPU).parameter_count()});
  const auto lora = random_lora(model);
  for (int64_t i = 0; i < lora.module_count(); ++i) {
    lora.view_a(seen, i).add_(1);
    lora.view_b(seen, i).add_(1);
  }
  CHECK(seen.equal(torch::ones_like(seen)));

  const Trainer with(model, text_config(), tiny_images(1)), without(model, tiny_config(), tiny_images(1));
  CHECK(!without.lora().layout().text_encoder);
  for (int64_t i = 0; i < without.lora().module_count(); ++i) CHECK(with.lora().a(i).equal(without.lora().a(i)));
  const int64_t last = with.lora().module_count() - 1;
  const double bound = 1.0 / std::sqrt(32.0);
  CHECK(with.lora().a(last).equal(
      draw_uniform({4, 32}, -bound, bound, {42, RandomStream::kLoraInit, static_cast<uint64_t>(last)})));
}

TEST(a_forward_pass_equals_merged_weights) {
  const torch::NoGradGuard no_grad;
  const TemporaryDirectory directory;
  write_random_base_model(directory.path(), "tiny", 3);
  const auto model = load_base_model(directory.path(), {});
  const auto lora = random_lora(model);
  LoraStep step(lora, torch::kFloat32);
  const auto states = model.text_encoder.encode(some_ids(), &step);
  CHECK(relative_error(states, model.text_encoder.encode(some_ids())) > 0.05);

  const auto path = directory / "text_encoder/model.safetensors";
  std::map<std::string, torch::Tensor> merged;
  {
    const SafetensorsFile file(path);
    for (const auto& [key, entry] : file.entries()) merged[key] = file.tensor(key).clone();
  }
  for (int64_t i = lora.layout().text_encoder->target; i < lora.module_count(); ++i) {
    merged.at(lora.targets()[static_cast<size_t>(i)].name + ".weight") += 2.0 * lora.b(i).mm(lora.a(i));
  }
  write_safetensors(path, merged);
  const auto merged_model = load_base_model(directory.path(), {});
  CHECK_AT_MOST(relative_error(states, merged_model.text_encoder.encode(some_ids())), 5e-6);
}

// Gradients of a step, with the dropouts of the text encoder's layers drawn before the UNet's.
TEST(a_step_with_dropout_equals_the_recipe_written_out) {
  const auto& model = tiny_model();
  auto config = text_config();
  config.gradient_accumulation = 3;
  Trainer trainer(model, config, tiny_images(3));
  // B starts at zero, where nothing depends on dropout.
  auto state = trainer.state();
  state.params = 0.2 * torch::randn(state.params.sizes(), make_generator(6));
  trainer.set_state(state);
  const double loss = train_steps(trainer, 1).at(0);

  const int64_t image = draw_permutation(3, {42, RandomStream::kEpochOrder, 0})[0].item<int64_t>();
  const auto timestep = draw_integers(1000, 1, {42, RandomStream::kTimestep, 0});
  const auto& size = trainer.data().sizes.at(0);
  const auto mean = size.latent_means[image].unsqueeze(0);
  const auto std = size.latent_stds[image].unsqueeze(0);
  const auto latents = (mean + std * draw_normal(mean.sizes(), {42, RandomStream::kLatentSample, 0})) *
                       model.vae.config().scaling_factor;
  const auto noise = draw_normal(mean.sizes(), {42, RandomStream::kNoise, 0});
  const auto noisy = NoiseSchedule(model.scheduler, torch::kCPU).add_noise(latents, noise, timestep);
  const auto ids = torch::tensor(tiny_images(3)[static_cast<size_t>(image)].token_ids, torch::kInt64).unsqueeze(0);

  LoraParameters lora(joint_layout(model), {4, 8.0, 0.1}, torch::kCPU);
  lora.values().detach().copy_(state.params);
  LoraStep step(lora, torch::kFloat32, make_generator({42, RandomStream::kDropout, 0}));
  const auto text = model.unet.prepare_text(model.text_encoder.encode(ids, &step));
  const auto expected = torch::mse_loss(model.unet.forward(noisy, timestep, text, &step), noise);
  (expected / 3.0).backward();
  CHECK_AT_MOST(std::abs(loss / expected.item<double>() - 1), 1e-6);
  CHECK(text_norm(lora, lora.gradients()) > 0);
  CHECK_AT_MOST(relative_error(trainer.lora().gradients(), lora.gradients()), 1e-6);
}

TEST(both_networks_learn) {
  Trainer trainer(tiny_model(), text_config(), tiny_images(2));
  const auto before = trainer.lora().values().detach().clone();
  train_steps(trainer, 2);
  CHECK(text_norm(trainer.lora(), trainer.lora().values().detach() - before) > 0);
}

TEST(gradient_checkpointing_changes_no_bit) {
  auto config = text_config();
  config.batch_size = 2;
  config.gradient_accumulation = 2;
  Trainer plain(tiny_model(), config, tiny_images(5));
  config.gradient_checkpointing = true;
  Trainer checkpointing(tiny_model(), config, tiny_images(5));
  const auto expected = train_steps(plain, 10), actual = train_steps(checkpointing, 10);
  CHECK(actual == expected);
  CHECK(checkpointing.lora().values().equal(plain.lora().values()));
}

TEST(half_precision_trains_both_networks) {
  for (const auto dtype : {torch::kBFloat16, torch::kFloat16}) {
    const auto model = load_tiny_model(dtype);
    Trainer half(model, text_config(), tiny_images(2)), whole(tiny_model(), text_config(), tiny_images(2));
    const auto before = half.lora().values().detach().clone();
    const auto actual = train_steps(half, 4), expected = train_steps(whole, 4);
    for (size_t i = 0; i < expected.size(); ++i)
      CHECK_AT_MOST(std::abs(actual[i] / expected[i] - 1), 4e-3);  // bf16: 9.1e-4
    CHECK(half.lora().values().scalar_type() == torch::kFloat32);
    CHECK(text_norm(half.lora(), half.lora().values().detach() - before) > 0);
  }
}

// With everything on that has a state or draws at random, from every place in an epoch with a short window.
TEST(a_resumed_run_equals_an_uninterrupted_one) {
  constexpr int64_t kTotal = 8;
  auto config = text_config();
  config.batch_size = 2;
  config.gradient_accumulation = 2;
  config.caption_dropout = 0.5;
  config.ema_decay = 0.9;
  config.text_encoder_learning_rate = 5e-4;
  const auto model = load_tiny_model(torch::kFloat16);
  const auto make_trainer = [&] { return Trainer(model, config, tiny_images(5), {}, tiny_images(1)[0].token_ids); };
  auto whole = make_trainer();
  train_steps(whole, kTotal);
  for (int64_t first = 0; first <= 4; ++first) {
    const auto file = temporary_directory() / ("resume" + std::to_string(first));
    auto interrupted = make_trainer();
    train_steps(interrupted, first);
    save_checkpoint(interrupted, file);
    auto resumed = make_trainer();
    restore_checkpoint(resumed, file);
    train_steps(resumed, kTotal - first);
    CHECK(resumed.lora().values().equal(whole.lora().values()));
    CHECK(resumed.result().values().equal(whole.result().values()));
  }
}

TEST(a_checkpoint_with_and_one_without_it_are_not_exchanged) {
  const auto& model = tiny_model();
  Trainer with(model, text_config(), tiny_images(2)), without(model, tiny_config(), tiny_images(2));
  const auto file = temporary_directory() / "with", other = temporary_directory() / "without";
  save_checkpoint(with, file);
  save_checkpoint(without, other);
  CHECK(SafetensorsFile(file).metadata().at("train_text_encoder") == "on");
  CHECK(SafetensorsFile(other).metadata().count("train_text_encoder") == 0);
  CHECK_ERROR(restore_checkpoint(without, file), ErrorCode::kCheckpointIncompatible, "train_text_encoder is on");
  CHECK_ERROR(restore_checkpoint(with, other), ErrorCode::kCheckpointIncompatible, "train_text_encoder is off");
}

TEST(a_rate_of_its_own_moves_the_text_encoder_by_that_share) {
  const auto change_at = [](std::optional<double> rate) {
    auto config = text_config();
    config.text_encoder_learning_rate = rate;
    Trainer trainer(tiny_model(), config, tiny_images(2));
    const auto before = trainer.lora().values().detach().clone();
    train_steps(trainer, 1);
    const auto change = trainer.lora().values().detach() - before;
    const double text = text_norm(trainer.lora(), change);
    return std::pair{text, std::sqrt(change.square().sum().item<double>() - text * text)};
  };
  const auto [text, unet] = change_at(std::nullopt);
  const auto [half_text, half_unet] = change_at(5e-4);
  CHECK_AT_MOST(std::abs(half_text / text - 0.5), 1e-6);
  CHECK_AT_MOST(std::abs(half_unet / unet - 1), 1e-6);
}

TEST(rates_that_mean_nothing_are_refused) {
  auto config = text_config();
  config.text_encoder_learning_rate = 0.0;
  CHECK_ERROR(Trainer(tiny_model(), config, tiny_images(1)), ErrorCode::kInvalidRequest, "text_encoder_learning_rate");
  config.text_encoder_learning_rate = 0.5;
  config.optimizer = OptimizerKind::kProdigy;
  CHECK_ERROR(Trainer(tiny_model(), config, tiny_images(1)), ErrorCode::kInvalidRequest, "Prodigy");
}

TEST(pictures_are_drawn_with_it) {
  std::vector<int32_t> prompt(77, 1023);
  prompt[0] = 1022;
  const SampleOptions options{prompt, prompt, 2, 1.0, 11, 64, 32};
  auto lora = random_lora(tiny_model());
  const auto with = sample_picture(tiny_model(), &lora, options).value();
  const torch::NoGradGuard no_grad;
  for (int64_t i = lora.layout().text_encoder->target; i < lora.module_count(); ++i) lora.b(i).zero_();
  CHECK(with.pixels != sample_picture(tiny_model(), &lora, options).value().pixels);
}

TEST_MAIN()
