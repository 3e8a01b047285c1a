// The LoRA's own behaviour: memory layout, dropout, and that a forward pass equals the merged weights' one.
#include "check.h"
#include "core/errors.h"
#include "core/lora/lora_step.h"
#include "core/train/random_streams.h"
#include "golden.h"

using namespace brushwork;
using namespace brushwork::test;

namespace {

LoraParameters random_lora(const UNet& unet, double dropout = 0.0) {
  LoraParameters lora(unet.lora_layout(), {4, 8.0, dropout}, torch::kCPU);
  const torch::NoGradGuard no_grad;
  lora.values().copy_(0.2 * randn(5, {lora.parameter_count()}));
  return lora;
}

struct Inputs {
  torch::Tensor sample = randn(2, {2, 4, 16, 16});
  torch::Tensor timesteps = torch::tensor({3, 721});
  torch::Tensor states = randn(4, {2, 77, 32});
};

torch::Tensor predict(const UNet& unet, LoraStep* step) {
  const Inputs inputs;
  return unet.forward(inputs.sample, inputs.timesteps, unet.prepare_text(inputs.states), step);
}

}  // namespace

TEST(views_cover_the_flat_tensor_once) {
  const auto model = load_tiny_model();
  const auto lora = random_lora(model.unet);
  auto seen = torch::zeros({lora.parameter_count()});
  for (int64_t i = 0; i < lora.module_count(); ++i) {
    lora.view_a(seen, i).add_(1);
    lora.view_b(seen, i).add_(1);
    CHECK(torch::equal(lora.a(i), lora.view_a(lora.values(), i)));
  }
  CHECK(torch::equal(seen, torch::ones_like(seen)));
}

TEST(zero_b_changes_nothing) {
  const torch::NoGradGuard no_grad;
  const auto model = load_tiny_model();
  auto lora = random_lora(model.unet);
  lora.initialize([](int64_t ordinal) { return make_generator(static_cast<uint64_t>(ordinal)); });
  LoraStep step(lora, torch::kFloat32);
  CHECK_AT_MOST(relative_error(predict(model.unet, &step), predict(model.unet, nullptr)), 1e-6);
}

TEST(forward_pass_equals_merged_weights) {
  const torch::NoGradGuard no_grad;
  const TemporaryDirectory directory;
  write_random_base_model(directory.path(), "tiny", 3);
  const auto model = load_base_model(directory.path(), {});
  const auto lora = random_lora(model.unet);
  LoraStep step(lora, torch::kFloat32);
  const auto predicted = predict(model.unet, &step);
  CHECK(relative_error(predicted, predict(model.unet, nullptr)) > 0.05);

  const auto path = directory / "unet/diffusion_pytorch_model.safetensors";
  std::map<std::string, torch::Tensor> merged;
  {
    const SafetensorsFile file(path);
    for (const auto& [key, entry] : file.entries()) merged[key] = file.tensor(key).clone();
  }
  for (int64_t i = 0; i < lora.module_count(); ++i) {
    merged.at(lora.targets()[static_cast<size_t>(i)].name + ".weight") += 2.0 * lora.b(i).mm(lora.a(i));
  }
  write_safetensors(path, merged);
  const auto merged_model = load_base_model(directory.path(), {});
  CHECK_AT_MOST(relative_error(predicted, predict(merged_model.unet, nullptr)), 5e-6);
}

TEST(backward_adds_to_the_flat_gradients) {
  const auto model = load_tiny_model();
  const auto lora = random_lora(model.unet);
  const auto backward = [&] {
    LoraStep step(lora, torch::kFloat32);
    predict(model.unet, &step).square().mean().backward();
  };
  backward();
  const auto once = lora.gradients().clone();
  for (int64_t i = 0; i < lora.module_count(); ++i) {
    CHECK(lora.a_gradient(i).norm().item<double>() > 0);
    CHECK(lora.b_gradient(i).norm().item<double>() > 0);
  }
  backward();
  CHECK_AT_MOST(relative_error(lora.gradients(), 2 * once), 1e-6);
}

TEST(gradients_equal_finite_differences) {
  const auto model = load_tiny_model();
  const auto lora = random_lora(model.unet);
  const auto loss = [&] {
    LoraStep step(lora, torch::kFloat32);
    return predict(model.unet, &step).square().mean();
  };
  loss().backward();
  const torch::NoGradGuard no_grad;
  const auto direction = randn(9, {lora.parameter_count()});
  const auto at = [&](double distance) {
    lora.values().add_(direction, distance);
    const double value = loss().item<double>();
    lora.values().sub_(direction, distance);
    return value;
  };
  const double slope = (at(1e-3) - at(-1e-3)) / 2e-3;
  // Float32 rounding of the loss over the distance, and the third derivative. Measured: 2.2e-4.
  CHECK_AT_MOST(std::abs(slope / lora.gradients().dot(direction).item<double>() - 1.0), 2e-3);
}

TEST(the_same_steps_give_the_same_bits) {
  const auto model = load_tiny_model();
  const auto lora = random_lora(model.unet, 0.3);
  const auto gradients = [&] {
    lora.gradients().zero_();
    LoraStep step(lora, torch::kFloat32, make_generator(77));
    predict(model.unet, &step).square().mean().backward();
    return lora.gradients().clone();
  };
  const auto first = gradients();
  for (int i = 0; i < 5; ++i) CHECK(torch::equal(gradients(), first));
}

TEST(dropout_follows_its_generator) {
  const torch::NoGradGuard no_grad;
  const auto model = load_tiny_model();
  const auto lora = random_lora(model.unet, 0.3);
  const auto with_seed = [&](uint64_t seed) {
    LoraStep step(lora, torch::kFloat32, make_generator(seed));
    return predict(model.unet, &step);
  };
  LoraStep without(lora, torch::kFloat32);
  CHECK(!without.has_dropout());
  CHECK(torch::equal(with_seed(1), with_seed(1)));
  CHECK(relative_error(with_seed(1), with_seed(2)) > 1e-3);
  CHECK(relative_error(with_seed(1), predict(model.unet, &without)) > 1e-3);
}

TEST(dropout_keeps_the_mean) {
  const auto model = load_tiny_model();
  const auto lora = random_lora(model.unet, 0.3);
  LoraStep step(lora, torch::kFloat32, make_generator(4));
  const auto dropped = step.dropped(torch::ones({400, 500}), 3);
  CHECK(dropped.sizes() == torch::IntArrayRef({3, 400, 500}));
  CHECK(!torch::equal(dropped[0], dropped[1]));
  // Six standard deviations of the mean of 600 000 draws.
  CHECK_AT_MOST(std::abs(dropped.mean().item<double>() - 0.7), 6 * 0.46 / std::sqrt(6e5));
  CHECK(((dropped == 0) | (dropped == 1)).all().item<bool>());
  // B makes up for it, and holds alpha / rank.
  const auto group = lora.layout().b_groups[3];
  CHECK_AT_MOST(relative_error(step.b_group(3)[0], lora.b(group[0]) * (2.0 / 0.7)), 1e-6);
}

TEST(numbers_out_of_range_are_refused) {
  const auto model = load_tiny_model();
  const auto make = [&](LoraConfig config) { LoraParameters(model.unet.lora_layout(), config, torch::kCPU); };
  CHECK_ERROR(make({0, 8.0, 0.0}), ErrorCode::kInvalidRequest, "rank");
  CHECK_ERROR(make({4, 0.0, 0.0}), ErrorCode::kInvalidRequest, "alpha");
  CHECK_ERROR(make({4, 8.0, 1.0}), ErrorCode::kInvalidRequest, "dropout");
  CHECK_ERROR(LoraParameters({}, {4, 8.0, 0.0}, torch::kCPU), ErrorCode::kInvalidRequest, "no layer");
}

TEST_MAIN()
