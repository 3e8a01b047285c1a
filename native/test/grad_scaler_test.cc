#include "core/train/grad_scaler.h"

#include "check.h"

using brushwork::GradScaler;

TEST(a_small_gradient_is_not_scaled_up) {
  auto grad = torch::tensor({0.03f, 0.04f});
  brushwork::clip_grad_norm_(grad, 1.0);
  CHECK(grad.equal(torch::tensor({0.03f, 0.04f})));
}

TEST(a_finite_gradient_is_unscaled) {
  GradScaler scaler(torch::kCPU);
  auto grad = torch::tensor({65536.0f, -131072.0f});
  CHECK(scaler.unscale_(grad).item<float>() == 0.0f);
  CHECK(grad.equal(torch::tensor({1.0f, -2.0f})));
}

TEST(a_non_finite_gradient_halves_the_scale_and_is_cleared) {
  GradScaler scaler(torch::kCPU);
  for (const float bad : {INFINITY, -INFINITY, NAN}) {
    auto grad = torch::tensor({1.0f, bad});
    const float before = scaler.scale().item<float>();
    const auto found_inf = scaler.unscale_(grad);
    CHECK(found_inf.item<float>() == 1.0f);
    CHECK(grad[1].item<float>() == 0.0f);
    scaler.update(found_inf);
    CHECK(scaler.scale().item<float>() == before / 2);
  }
}

TEST(two_thousand_finite_steps_double_the_scale) {
  GradScaler scaler(torch::kCPU);
  const auto finite = torch::zeros({});
  for (int step = 0; step < 1999; ++step) scaler.update(finite);
  CHECK(scaler.scale().item<float>() == 65536.0f);
  scaler.update(finite);
  CHECK(scaler.scale().item<float>() == 131072.0f);
  CHECK(scaler.growth_tracker().item<int>() == 0);
}

TEST_MAIN()
