// The optimizers by themselves. Whole trainings with each are in options_reference_test.cc.
#include "core/train/optimizer.h"

#include "check.h"
#include "core/train/adamw.h"
#include "core/train/grad_scaler.h"

using namespace brushwork;

namespace {

constexpr OptimizerKind kKinds[] = {OptimizerKind::kAdamW, OptimizerKind::kLion, OptimizerKind::kProdigy};

torch::Tensor rate(double value) { return torch::full({}, value, torch::kFloat64); }

torch::Tensor tensor_of(const Optimizer& optimizer, const std::string& name) {
  for (const auto& part : optimizer.state()) {
    if (part.name == name) return part.tensor;
  }
  throw std::runtime_error("no " + name);
}

// Gradient of step k of the reference run below.
torch::Tensor gradient(int k) { return torch::linspace(-1, 2, 6) * (k + 1) * std::pow(10.0, -k); }

// Copies of everything that a step may change.
std::vector<torch::Tensor> snapshot(const Optimizer& optimizer, const torch::Tensor& params) {
  std::vector<torch::Tensor> copies = {params.clone(), optimizer.step_count().clone()};
  for (const auto& part : optimizer.state()) copies.push_back(part.tensor.clone());
  return copies;
}

bool is_same(const std::vector<torch::Tensor>& one, const std::vector<torch::Tensor>& other) {
  return std::equal(one.begin(), one.end(), other.begin(), other.end(),
                    [](const auto& a, const auto& b) { return a.equal(b); });
}

}  // namespace

// The numbers were printed by Python torch 2.11.0:
//   p = torch.nn.Parameter(torch.linspace(-1, 1, 6))
//   opt = torch.optim.AdamW([p], lr=1e-2, weight_decay=0.1, foreach=False)
//   for k in range(5):
//       p.grad = torch.linspace(-1, 2, 6) * (k + 1) * 10.0 ** -k
//       print(torch.nn.utils.clip_grad_norm_([p], 0.5))
//       opt.step()
TEST(five_clipped_adamw_steps_equal_python) {
  auto params = torch::linspace(-1, 1, 6);
  AdamW optimizer({.weight_decay = 0.1}, params);
  const double norms[] = {2.7928481101989746, 0.558569610118866, 0.08378543704748154, 0.011171392165124416,
                          0.0013964239042252302};
  for (int k = 0; k < 5; ++k) {
    auto grad = gradient(k);
    CHECK_AT_MOST(std::abs(brushwork::clip_grad_norm_(grad, 0.5).item<double>() / norms[k] - 1.0), 1e-6);
    optimizer.step(grad, rate(1e-2), {});
  }
  // Both sides round float32 in the same order; 1e-6 leaves room for the norm's order of summation.
  using brushwork::test::relative_error;
  CHECK_AT_MOST(relative_error(params, torch::tensor({-0x1.e852fep-1f, -0x1.1c8bcep-1f, -0x1.ec0a3cp-3f, 0x1.431276p-3f,
                                                      0x1.1c8bcep-1f, 0x1.e852fep-1f})),
                1e-6);
  CHECK_AT_MOST(
      relative_error(tensor_of(optimizer, "exp_avg"), torch::tensor({-0x1.c4cefcp-6f, -0x1.6a3f2ep-7f, 0x1.6a3f34p-8f,
                                                                     0x1.6a3f2ep-6f, 0x1.3cf748p-5f, 0x1.c4cefcp-5f})),
      1e-6);
  CHECK_AT_MOST(relative_error(tensor_of(optimizer, "exp_avg_sq"),
                               torch::tensor({0x1.0fc2b8p-14f, 0x1.5bda88p-17f, 0x1.5bda94p-19f, 0x1.5bda88p-15f,
                                              0x1.0a534ep-13f, 0x1.0fc2b8p-12f})),
                1e-6);
  CHECK(optimizer.step_count().item<double>() == 5.0);
}

TEST(a_skipped_step_changes_nothing) {
  for (const auto kind : kKinds) {
    auto params = torch::linspace(-1, 1, 6);
    const auto optimizer = make_optimizer(kind, 0.1, params);
    optimizer->step(gradient(0), rate(1), {});
    optimizer->step(gradient(1), rate(1), {});
    const auto before = snapshot(*optimizer, params);
    optimizer->step(gradient(1), rate(1), torch::ones({}));
    CHECK(is_same(snapshot(*optimizer, params), before));
    CHECK(optimizer->step_count().item<double>() == 2.0);
    optimizer->step(gradient(1), rate(1), torch::zeros({}));
    CHECK(!params.equal(before[0]) && optimizer->step_count().item<double>() == 3.0);
  }
}

TEST(a_skipped_first_step_leaves_finite_parameters) {
  for (const auto kind : kKinds) {
    auto params = torch::linspace(-1, 1, 6);
    const auto optimizer = make_optimizer(kind, 0.1, params);
    optimizer->step(gradient(0), rate(1e-2), torch::ones({}));
    CHECK(params.equal(torch::linspace(-1, 1, 6)));
  }
}

TEST(a_learning_rate_of_zero_moves_nothing_and_counts) {
  for (const auto kind : kKinds) {
    auto params = torch::linspace(-1, 1, 6);
    const auto optimizer = make_optimizer(kind, 0.1, params);
    optimizer->step(gradient(0), rate(0), {});
    CHECK(params.equal(torch::linspace(-1, 1, 6)));
    CHECK(optimizer->step_count().item<double>() == 1.0);
  }
}

// Down a quadratic bowl, whose gradient is the place itself.
TEST(parameters_step_count_and_state_are_all_that_the_next_step_depends_on) {
  const auto descend = [](Optimizer& optimizer, const torch::Tensor& params, int count) {
    for (int k = 0; k < count; ++k) optimizer.step(params.clone(), rate(1), {});
  };
  for (const auto kind : kKinds) {
    auto params = torch::linspace(1, 3, 6), resumed_params = torch::linspace(1, 3, 6);
    const auto whole = make_optimizer(kind, 0.1, params);
    const auto resumed = make_optimizer(kind, 0.1, resumed_params);
    descend(*whole, params, 40);
    descend(*resumed, resumed_params, 3);  // something to be replaced
    resumed_params.copy_(params);
    resumed->step_count().copy_(whole->step_count());
    const auto from = whole->state(), to = resumed->state();
    for (size_t i = 0; i < from.size(); ++i) to[i].tensor.copy_(from[i].tensor);
    descend(*whole, params, 100);
    descend(*resumed, resumed_params, 100);
    CHECK(is_same(snapshot(*resumed, resumed_params), snapshot(*whole, params)));
    if (kind == OptimizerKind::kProdigy) CHECK(whole->learning_rate_factor().item<double>() > 1e-5);
  }
}

TEST(prodigy_without_a_gradient_stands_still) {
  auto params = torch::linspace(-1, 1, 6);
  const auto optimizer = make_optimizer(OptimizerKind::kProdigy, 0.1, params);
  optimizer->step(torch::zeros({6}), rate(1), {});
  CHECK(params.equal(torch::linspace(-1, 1, 6)));
  CHECK(optimizer->learning_rate_factor().item<double>() == 1e-6);
}

// On a quadratic bowl 3 from its bottom, d has to grow from 1e-6 to the order of that distance.
TEST(prodigy_finds_its_learning_rate) {
  auto params = torch::full({4}, 3.0f);
  const auto optimizer = make_optimizer(OptimizerKind::kProdigy, 0, params);
  for (int k = 0; k < 300; ++k) optimizer->step(params.clone(), rate(1), {});
  const double d = optimizer->learning_rate_factor().item<double>();
  CHECK(d > 0.03 && d < 30);
  CHECK_AT_MOST(params.abs().max().item<double>(), 0.3);
}

TEST(only_prodigy_has_a_factor) {
  for (const auto kind : kKinds) {
    const auto optimizer = make_optimizer(kind, 0.1, torch::zeros({2}));
    CHECK(optimizer->learning_rate_factor().defined() == (kind == OptimizerKind::kProdigy));
  }
}

TEST_MAIN()
