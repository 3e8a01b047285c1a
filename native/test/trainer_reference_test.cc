// Whole trainings against diffusers + PEFT: shapes of jobs and models.
#include "golden_comparison.h"

using namespace brushwork::test;

TEST(hundred_steps_equal_peft) { check_equals_reference("plain"); }

TEST(an_alpha_that_is_off_by_one_percent_fails) {
  const auto result = repeat("plain", 1.01);
  CHECK(result.loss > kLossTolerance);
  CHECK(result.weight > kWeightTolerance);
  CHECK(result.gradient > kGradientTolerance);
}

TEST(batches_of_three_with_a_short_last_one_equal_peft) { check_equals_reference("batch_of_3"); }

TEST(gradient_accumulation_equals_peft) { check_equals_reference("accumulating"); }

TEST(clipping_equals_peft) { check_equals_reference("clipping"); }

TEST(rectangular_pictures_equal_peft) { check_equals_reference("rectangular"); }

TEST(v_prediction_equals_peft) { check_equals_reference("v_prediction"); }

TEST(four_levels_equal_peft) { check_equals_reference("four_levels"); }

// The masks too: both sides draw them on the CPU in the order that docs/training.md tells.
TEST(dropout_equals_peft) {
  // A GPU draws its masks itself.
  if (test_device().is_cpu()) check_equals_reference("dropout");
}

TEST_MAIN()
