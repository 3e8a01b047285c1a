// Whole trainings against diffusers + PEFT: an option of the recipe in each.
#include "golden_comparison.h"

using namespace brushwork::test;

TEST(a_warmup_equals_diffusers) { check_equals_reference("constant_after_warmup"); }

TEST(the_linear_schedule_equals_diffusers) { check_equals_reference("linear"); }

TEST(the_linear_schedule_after_a_warmup_equals_diffusers) { check_equals_reference("linear_after_warmup"); }

TEST(the_cosine_schedule_equals_diffusers) { check_equals_reference("cosine"); }

TEST(the_cosine_schedule_after_a_warmup_equals_diffusers) { check_equals_reference("cosine_after_warmup"); }

TEST(min_snr_weights_equal_diffusers) { check_equals_reference("min_snr"); }

TEST(min_snr_weights_of_v_prediction_equal_diffusers) { check_equals_reference("min_snr_v_prediction"); }

TEST(a_noise_offset_equals_diffusers) { check_equals_reference("noise_offset"); }

TEST(lion_equals_its_paper) { check_equals_reference("lion"); }

// Prodigy's rate is measured from the training itself, so it is as exact as the losses.
TEST(prodigy_equals_prodigyopt) { check_equals_reference("prodigy", kLossTolerance); }

TEST(the_moving_average_equals_diffusers) { check_equals_reference("ema"); }

TEST(pictures_of_several_sizes_equal_the_recipe) { check_equals_reference("sizes"); }

TEST(mirrored_pictures_equal_the_recipe) { check_equals_reference("flip"); }

TEST(dropped_captions_equal_the_recipe) { check_equals_reference("caption_dropout"); }

TEST_MAIN()
