// Whole trainings of UNet and text encoder against diffusers, transformers and PEFT.
#include "golden_comparison.h"

using namespace brushwork;
using namespace brushwork::test;

namespace {

std::vector<LoraTarget> joint_targets() {
  const auto& model = tiny_model();
  return join_layouts(model.unet.lora_layout(), model.text_encoder.lora_layout()).targets;
}

}  // namespace

TEST(module_names_and_shapes_of_both_networks_equal_peft) {
  const auto training = golden_training("text_encoder");
  const auto model = load_golden_model(training);
  const Trainer trainer(model, golden_config(training), golden_images(training));
  const auto& lora = trainer.lora();
  const auto expected = golden_lora("text_encoder");
  // A and B at the end, and B's gradient.
  CHECK(expected.entries().size() == 3 * static_cast<size_t>(lora.module_count()));
  CHECK(lora.layout().text_encoder->target == 32 && lora.module_count() == 32 + 2 * 4);
  for (int64_t i = 0; i < lora.module_count(); ++i) {
    const auto& name = lora.targets()[static_cast<size_t>(i)].name;
    CHECK(lora.a(i).sizes() == expected.tensor("final." + name + ".lora_A.weight").sizes());
    CHECK(lora.b(i).sizes() == expected.tensor("final." + name + ".lora_B.weight").sizes());
  }
}

TEST(hundred_steps_of_both_networks_equal_peft) { check_equals_reference("text_encoder"); }

// Where B is zero no gradient reaches A: here B starts elsewhere, so that A's are compared too.
TEST(first_gradients_of_every_a_and_b_equal_peft) {
  const auto golden = golden_lora("initial_b");
  for (const auto& target : joint_targets()) {
    for (const std::string side : {"A", "B"}) {
      CHECK(golden.tensor("gradient." + target.name + ".lora_" + side + ".weight").count_nonzero().item<int64_t>() > 0);
    }
  }
  check_equals_reference("initial_b");
}

TEST(an_alpha_that_is_off_by_one_percent_fails) {
  const auto result = repeat("text_encoder", 1.01);
  CHECK(result.loss > kLossTolerance);
  CHECK(result.weight > kWeightTolerance);
  CHECK(result.gradient > kGradientTolerance);
}

TEST(batches_of_three_with_accumulation_clipping_and_empty_captions_equal_peft) {
  check_equals_reference("text_encoder_accumulating");
}

TEST(a_learning_rate_of_its_own_equals_parameter_groups) { check_equals_reference("text_encoder_rate"); }

TEST_MAIN()
