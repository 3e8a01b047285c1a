#include "core/train/checkpoint.h"

#include "check.h"
#include "core/model_io/safetensors.h"
#include "tiny_job.h"

using namespace brushwork;
using namespace brushwork::test;

static void train_steps(Trainer& trainer, int64_t count) {
  trainer.train(trainer.config().epochs, nullptr, after_steps(trainer, count));
}

// Batches of 2 over 5 images with a window of 2 micro-steps: epochs of 3 micro-steps with a short batch and a short
// window.
static TrainingConfig accumulating_config() {
  auto config = tiny_config();
  config.batch_size = 2;
  config.gradient_accumulation = 2;
  return config;
}

static void check_same_state(const Trainer& actual, const Trainer& expected, const std::string& name) {
  save_checkpoint(actual, temporary_directory() / (name + "-actual"));
  save_checkpoint(expected, temporary_directory() / (name + "-expected"));
  CHECK(read_file(temporary_directory() / (name + "-actual")) ==
        read_file(temporary_directory() / (name + "-expected")));
}

static void check_same_scaler(const Trainer& actual, const Trainer& expected) {
  const auto a = actual.state(), e = expected.state();
  CHECK(a.loss_scale.defined() == e.loss_scale.defined());
  if (e.loss_scale.defined()) CHECK(a.loss_scale.equal(e.loss_scale) && a.growth_tracker.equal(e.growth_tracker));
}

// N + M steps equal N + M steps in one go, bit for bit, from every place in an epoch, with dropout on. `start` changes
// the state in which a run begins; a trainer that goes on from a checkpoint never sees it.
static void check_resume(
    const BaseModel& model, const std::string& name, const TrainingConfig& config = accumulating_config(),
    const std::vector<TrainingImage>& images = tiny_images(5),
    const std::function<void(Trainer&)>& start = [](Trainer&) {}) {
  constexpr int64_t kTotal = 8;
  const auto make_trainer = [&] { return Trainer(model, config, images, {}, tiny_images(1)[0].token_ids); };
  auto whole = make_trainer();
  start(whole);
  train_steps(whole, kTotal);
  for (int64_t first = 0; first <= 6; ++first) {
    const auto file = temporary_directory() / (name + std::to_string(first));
    {
      auto interrupted = make_trainer();
      start(interrupted);
      train_steps(interrupted, first);
      save_checkpoint(interrupted, file);
    }
    auto resumed = make_trainer();
    // Something of its own to be replaced.
    train_steps(resumed, 1);
    restore_checkpoint(resumed, file);
    CHECK(resumed.position().micro_steps_run == first);
    train_steps(resumed, kTotal - first);
    CHECK(resumed.lora().values().equal(whole.lora().values()));
    CHECK(resumed.result().values().equal(whole.result().values()));
    CHECK(resumed.position().optimizer_steps_run == whole.position().optimizer_steps_run);
    check_same_scaler(resumed, whole);
    check_same_state(resumed, whole, name);
  }
}

TEST(a_resumed_run_equals_an_uninterrupted_one) { check_resume(tiny_model(), "resume"); }

TEST(a_resumed_fp16_run_equals_an_uninterrupted_one) {
  const auto model = load_tiny_model(torch::kFloat16);
  check_resume(model, "resume-fp16");
}

// Starts the loss scaler of an fp16 run elsewhere than at 65536.
static std::function<void(Trainer&)> scaler_at(double loss_scale, int32_t growth_tracker) {
  return [=](Trainer& trainer) {
    auto state = trainer.state();
    state.loss_scale = torch::full({}, loss_scale, torch::kFloat32);
    state.growth_tracker = torch::full({}, growth_tracker, torch::kInt32);
    trainer.set_state(state);
  };
}

// The windows of the accumulating job end after 2, 3, 5, 6 and 8 micro-steps. How many of them were skipped by then:
static int64_t skipped_steps(const Trainer& trainer) {
  int64_t windows = 0;
  for (const int64_t end : {2, 3, 5, 6, 8}) windows += trainer.position().micro_steps_run >= end ? 1 : 0;
  return windows - trainer.position().optimizer_steps_run;
}

// At this scale the tiny model's gradients overflow two or three times: before and after the cuts in the middle.
TEST(a_resumed_fp16_run_that_skips_steps_equals_an_uninterrupted_one) {
  const auto model = load_tiny_model(torch::kFloat16);
  const auto start = scaler_at(std::pow(2.0, 25), 0);
  Trainer trainer(model, accumulating_config(), tiny_images(5));
  start(trainer);
  train_steps(trainer, 2);
  CHECK(skipped_steps(trainer) == 1);
  train_steps(trainer, 6);
  CHECK(skipped_steps(trainer) > 1 && skipped_steps(trainer) < 5);
  check_resume(model, "resume-skips", accumulating_config(), tiny_images(5), start);
}

// 1998 finite steps before the run: its second one doubles the scale.
TEST(a_resumed_fp16_run_whose_scale_grows_equals_an_uninterrupted_one) {
  const auto model = load_tiny_model(torch::kFloat16);
  const auto start = scaler_at(65536, 1998);
  Trainer trainer(model, accumulating_config(), tiny_images(5));
  start(trainer);
  train_steps(trainer, 3);
  CHECK(trainer.state().loss_scale.item<double>() == 131072);
  check_resume(model, "resume-growth", accumulating_config(), tiny_images(5), start);
}

// With everything on that has a state or draws at random.
static TrainingConfig eventful_config(OptimizerKind optimizer) {
  auto config = accumulating_config();
  config.optimizer = optimizer;
  config.learning_rate = optimizer == OptimizerKind::kProdigy ? 1.0 : 1e-3;
  config.lr_scheduler = LrScheduler::kCosine;
  config.lr_warmup_steps = 2;
  config.epochs = 4;
  config.min_snr_gamma = 5.0;
  config.noise_offset = 0.1;
  config.ema_decay = 0.9;
  config.flip = true;
  config.caption_dropout = 0.5;
  return config;
}

TEST(a_resumed_run_with_everything_on_equals_an_uninterrupted_one) {
  check_resume(tiny_model(), "resume-adamw", eventful_config(OptimizerKind::kAdamW));
}

TEST(a_resumed_run_with_lion_equals_an_uninterrupted_one) {
  check_resume(tiny_model(), "resume-lion", eventful_config(OptimizerKind::kLion));
}

TEST(a_resumed_run_with_prodigy_equals_an_uninterrupted_one) {
  check_resume(tiny_model(), "resume-prodigy", eventful_config(OptimizerKind::kProdigy));
}

TEST(a_resumed_fp16_run_with_prodigy_equals_an_uninterrupted_one) {
  const auto model = load_tiny_model(torch::kFloat16);
  check_resume(model, "resume-fp16-prodigy", eventful_config(OptimizerKind::kProdigy));
}

// Epochs of 2 + 3 batches, with windows in which both sizes come.
TEST(a_resumed_run_over_several_sizes_equals_an_uninterrupted_one) {
  auto config = eventful_config(OptimizerKind::kAdamW);
  config.repeats = 2;
  config.gradient_checkpointing = true;
  check_resume(tiny_model(), "resume-sizes", config, mixed_images(5));
}

// Checkpoints of jobs without it are those that they always were.
TEST(what_is_not_used_leaves_no_trace_in_a_checkpoint) {
  Trainer trainer(tiny_model(), tiny_config(), tiny_images(2));
  const auto file = temporary_directory() / "plain";
  save_checkpoint(trainer, file);
  const SafetensorsFile opened(file);
  std::vector<std::string> tensors, keys;
  for (const auto& entry : opened.entries()) tensors.push_back(entry.first);
  for (const auto& entry : opened.metadata()) keys.push_back(entry.first);
  CHECK((tensors == std::vector<std::string>{"exp_avg", "exp_avg_sq", "params", "step_count"}));
  CHECK((keys == std::vector<std::string>{"alpha", "batch_size", "epochs_run", "format_version",
                                          "gradient_accumulation", "image_count", "lora_layout", "micro_steps_run",
                                          "optimizer_steps_run", "precision", "rank", "seed"}));
}

TEST(equal_states_are_equal_bytes) {
  Trainer first(tiny_model(), tiny_config(), tiny_images(2));
  Trainer second(tiny_model(), tiny_config(), tiny_images(2));
  train_steps(first, 3);
  train_steps(second, 3);
  check_same_state(first, second, "equal");
}

TEST(the_header_says_where_the_run_stands) {
  Trainer trainer(tiny_model(), accumulating_config(), tiny_images(5));
  train_steps(trainer, 4);
  const auto file = temporary_directory() / "header";
  save_checkpoint(trainer, file);
  const SafetensorsFile opened(file);
  CHECK(opened.metadata().at("format_version") == "1");
  CHECK(opened.metadata().at("epochs_run") == "1");
  CHECK(opened.metadata().at("micro_steps_run") == "4");
  CHECK(opened.metadata().at("optimizer_steps_run") == "2");
  CHECK(opened.metadata().at("seed") == "42");
  CHECK(opened.contains("gradients"));
}

// Saves the accumulating job after two micro-steps (at a window's end), rewrites the file, and restores it.
static void check_refusal(
    const char* part,
    const std::function<void(std::map<std::string, torch::Tensor>&, std::map<std::string, std::string>&)>& change) {
  Trainer trainer(tiny_model(), accumulating_config(), tiny_images(5));
  train_steps(trainer, 2);
  const auto file = temporary_directory() / "changed";
  save_checkpoint(trainer, file);
  std::map<std::string, torch::Tensor> tensors;
  std::map<std::string, std::string> metadata;
  {
    const SafetensorsFile opened(file);
    for (const auto& entry : opened.entries()) tensors.emplace(entry.first, opened.tensor(entry.first).clone());
    metadata = opened.metadata();
  }
  change(tensors, metadata);
  write_safetensors(file, tensors, metadata);
  const auto before = trainer.lora().values().detach().clone();
  CHECK_ERROR(restore_checkpoint(trainer, file), ErrorCode::kCheckpointIncompatible, part);
  CHECK(trainer.lora().values().equal(before) && trainer.position().micro_steps_run == 2);
}

TEST(a_checkpoint_without_metadata_is_refused) {
  check_refusal("format_version is none", [](auto&, auto& metadata) { metadata.clear(); });
}

TEST(a_checkpoint_of_another_format_is_refused) {
  check_refusal("format_version is 2", [](auto&, auto& metadata) { metadata["format_version"] = "2"; });
}

TEST(a_checkpoint_with_a_bad_count_is_refused) {
  check_refusal("micro_steps_run", [](auto&, auto& metadata) { metadata["micro_steps_run"] = "2x"; });
  check_refusal("micro_steps_run", [](auto&, auto& metadata) { metadata["micro_steps_run"] = "-1"; });
}

TEST(a_checkpoint_without_a_tensor_is_refused) {
  check_refusal("no tensor exp_avg", [](auto& tensors, auto&) { tensors.erase("exp_avg"); });
}

TEST(a_checkpoint_inside_a_window_without_gradients_is_refused) {
  check_refusal("no tensor gradients", [](auto&, auto& metadata) { metadata["micro_steps_run"] = "1"; });
}

TEST(a_checkpoint_with_a_tensor_of_another_shape_is_refused) {
  check_refusal("params", [](auto& tensors, auto&) { tensors["params"] = tensors["params"].slice(0, 1); });
}

TEST(a_checkpoint_with_a_tensor_of_another_type_is_refused) {
  check_refusal("exp_avg_sq",
                [](auto& tensors, auto&) { tensors["exp_avg_sq"] = tensors["exp_avg_sq"].to(torch::kFloat64); });
}

TEST(a_truncated_checkpoint_is_refused) {
  Trainer trainer(tiny_model(), tiny_config(), tiny_images(2));
  const auto file = temporary_directory() / "truncated";
  save_checkpoint(trainer, file);
  std::filesystem::resize_file(file, std::filesystem::file_size(file) - 1);
  CHECK_ERROR(restore_checkpoint(trainer, file), ErrorCode::kCheckpointIncompatible, file);
}

TEST(a_missing_checkpoint_is_refused) {
  Trainer trainer(tiny_model(), tiny_config(), tiny_images(2));
  CHECK_ERROR(restore_checkpoint(trainer, temporary_directory() / "missing"), ErrorCode::kCheckpointIncompatible,
              "missing");
}

// One row of the table in checkpoint.h each.
TEST(a_job_that_differs_where_it_matters_is_refused) {
  Trainer trainer(tiny_model(), accumulating_config(), tiny_images(5));
  const auto file = temporary_directory() / "other-job";
  save_checkpoint(trainer, file);
  const auto refuse = [&](const char* key, const std::function<void(TrainingConfig&)>& change, int64_t images = 5) {
    auto config = accumulating_config();
    change(config);
    Trainer other(tiny_model(), config, tiny_images(images));
    CHECK_ERROR(restore_checkpoint(other, file), ErrorCode::kCheckpointIncompatible, key);
  };
  refuse("seed", [](auto& config) { config.seed = 43; });
  refuse("rank", [](auto& config) { config.rank = 8; });
  refuse("alpha", [](auto& config) { config.alpha = 8.5; });
  refuse("batch_size", [](auto& config) { config.batch_size = 3; });
  refuse("gradient_accumulation", [](auto& config) { config.gradient_accumulation = 1; });
  refuse("image_count", [](auto&) {}, 6);
  refuse("optimizer is adamw", [](auto& config) { config.optimizer = OptimizerKind::kLion; });
  refuse("ema is off", [](auto& config) { config.ema_decay = 0.9; });
  const auto half = load_tiny_model(torch::kBFloat16);
  Trainer other(half, accumulating_config(), tiny_images(5));
  CHECK_ERROR(restore_checkpoint(other, file), ErrorCode::kCheckpointIncompatible, "precision");
}

TEST(a_job_whose_pictures_have_other_sizes_is_refused) {
  const auto file = temporary_directory() / "other-sizes";
  const auto refuse = [&](const std::vector<TrainingImage>& before, const std::vector<TrainingImage>& now,
                          const char* part) {
    save_checkpoint(Trainer(tiny_model(), tiny_config(), before), file);
    Trainer other(tiny_model(), tiny_config(), now);
    CHECK_ERROR(restore_checkpoint(other, file), ErrorCode::kCheckpointIncompatible, part);
  };
  refuse(mixed_images(5), tiny_images(5), "its sizes is 32x64 2, 64x32 3, the job's is one");
  refuse(tiny_images(5), mixed_images(5), "its sizes is one, the job's is 32x64 2, 64x32 3");
}

TEST(a_job_may_change_what_does_not_touch_the_state) {
  Trainer trainer(tiny_model(), accumulating_config(), tiny_images(5));
  train_steps(trainer, 3);
  const auto file = temporary_directory() / "same-job";
  save_checkpoint(trainer, file);
  auto config = accumulating_config();
  config.dropout = 0.2;
  config.learning_rate = 5e-4;
  config.weight_decay = 0;
  config.max_grad_norm = std::nullopt;
  config.epochs = 200;
  config.lr_scheduler = LrScheduler::kLinear;
  config.lr_warmup_steps = 3;
  config.min_snr_gamma = 5.0;
  config.noise_offset = 0.1;
  config.flip = true;
  Trainer other(tiny_model(), config, tiny_images(5));
  restore_checkpoint(other, file);
  CHECK(other.lora().values().equal(trainer.lora().values()));
  CHECK(other.position().epochs_run == 1);
}

TEST_MAIN()
