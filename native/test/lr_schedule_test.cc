#include "core/train/lr_schedule.h"

#include <vector>

#include "check.h"

using brushwork::LrSchedule;
using brushwork::LrScheduler;

namespace {

std::vector<double> rates(const LrSchedule& schedule, int64_t count) {
  std::vector<double> values;
  for (int64_t step = 0; step < count; ++step) values.push_back(schedule.at(step));
  return values;
}

void check_near(const std::vector<double>& actual, const std::vector<double>& expected) {
  CHECK(actual.size() == expected.size());
  for (size_t i = 0; i < actual.size(); ++i) CHECK(std::abs(actual[i] - expected[i]) < 1e-15);
}

}  // namespace

TEST(constant_is_exactly_the_learning_rate) {
  CHECK((rates({LrScheduler::kConstant, 1e-4, 0, 3}, 5) == std::vector<double>(5, 1e-4)));
}

TEST(a_warmup_rises_from_zero) {
  check_near(rates({LrScheduler::kConstant, 1.0, 4, 10}, 6), {0, 0.25, 0.5, 0.75, 1, 1});
}

TEST(linear_falls_to_zero_and_stays_there) {
  check_near(rates({LrScheduler::kLinear, 2.0, 0, 4}, 6), {2, 1.5, 1, 0.5, 0, 0});
  check_near(rates({LrScheduler::kLinear, 1.0, 2, 6}, 7), {0, 0.5, 1, 0.75, 0.5, 0.25, 0});
}

TEST(cosine_falls_in_half_a_wave) {
  check_near(rates({LrScheduler::kCosine, 1.0, 1, 5}, 6),
             {0, 1, 0.5 + std::sqrt(0.125), 0.5, 0.5 - std::sqrt(0.125), 0});
}

TEST(a_warmup_longer_than_the_run_never_ends) {
  check_near(rates({LrScheduler::kCosine, 1.0, 8, 4}, 4), {0, 0.125, 0.25, 0.375});
}

TEST_MAIN()
