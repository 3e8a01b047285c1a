#include "core/train/adamw.h"

#include "check.h"

using brushwork::AdamW;
using brushwork::GradScaler;

// Gradient of step k of the reference run below.
static torch::Tensor gradient(int k) { return torch::linspace(-1, 2, 6) * (k + 1) * std::pow(10.0, -k); }

// The numbers were printed by Python torch 2.11.0:
//   p = torch.nn.Parameter(torch.linspace(-1, 1, 6))
//   opt = torch.optim.AdamW([p], lr=1e-2, weight_decay=0.1, foreach=False)
//   for k in range(5):
//       p.grad = torch.linspace(-1, 2, 6) * (k + 1) * 10.0 ** -k
//       print(torch.nn.utils.clip_grad_norm_([p], 0.5))
//       opt.step()
TEST(five_clipped_steps_equal_python) {
  auto params = torch::linspace(-1, 1, 6);
  AdamW optimizer({.learning_rate = 1e-2, .weight_decay = 0.1}, params);
  const double norms[] = {2.7928481101989746, 0.558569610118866, 0.08378543704748154, 0.011171392165124416,
                          0.0013964239042252302};
  for (int k = 0; k < 5; ++k) {
    auto grad = gradient(k);
    CHECK_AT_MOST(std::abs(brushwork::clip_grad_norm_(grad, 0.5).item<double>() / norms[k] - 1.0), 1e-6);
    optimizer.step(grad);
  }
  // Both sides round float32 in the same order; 1e-6 leaves room for the norm's order of summation.
  using brushwork::test::relative_error;
  CHECK_AT_MOST(relative_error(params, torch::tensor({-0x1.e852fep-1f, -0x1.1c8bcep-1f, -0x1.ec0a3cp-3f, 0x1.431276p-3f,
                                                      0x1.1c8bcep-1f, 0x1.e852fep-1f})),
                1e-6);
  CHECK_AT_MOST(relative_error(optimizer.exp_avg(), torch::tensor({-0x1.c4cefcp-6f, -0x1.6a3f2ep-7f, 0x1.6a3f34p-8f,
                                                                   0x1.6a3f2ep-6f, 0x1.3cf748p-5f, 0x1.c4cefcp-5f})),
                1e-6);
  CHECK_AT_MOST(
      relative_error(optimizer.exp_avg_sq(), torch::tensor({0x1.0fc2b8p-14f, 0x1.5bda88p-17f, 0x1.5bda94p-19f,
                                                            0x1.5bda88p-15f, 0x1.0a534ep-13f, 0x1.0fc2b8p-12f})),
      1e-6);
  CHECK(optimizer.step_count().item<double>() == 5.0);
}

TEST(a_small_gradient_is_not_scaled_up) {
  auto grad = torch::tensor({0.03f, 0.04f});
  brushwork::clip_grad_norm_(grad, 1.0);
  CHECK(grad.equal(torch::tensor({0.03f, 0.04f})));
}

TEST(a_skipped_step_changes_nothing) {
  auto params = torch::linspace(-1, 1, 6);
  AdamW optimizer({.learning_rate = 1e-2, .weight_decay = 0.1}, params);
  optimizer.step(gradient(0));
  const auto params_before = params.clone(), exp_avg_before = optimizer.exp_avg().clone(),
             exp_avg_sq_before = optimizer.exp_avg_sq().clone();
  optimizer.step(gradient(1), torch::ones({}));
  CHECK(params.equal(params_before));
  CHECK(optimizer.exp_avg().equal(exp_avg_before));
  CHECK(optimizer.exp_avg_sq().equal(exp_avg_sq_before));
  CHECK(optimizer.step_count().item<double>() == 1.0);
}

TEST(a_skipped_first_step_leaves_finite_parameters) {
  auto params = torch::linspace(-1, 1, 6);
  AdamW optimizer({.learning_rate = 1e-2, .weight_decay = 0.1}, params);
  optimizer.step(gradient(0), torch::ones({}));
  CHECK(params.equal(torch::linspace(-1, 1, 6)));
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
