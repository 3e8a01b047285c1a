// The three frozen models against diffusers and transformers (golden files of test/reference/make_golden.py).
//
// Tolerance, relative in the 2-norm: both sides compute in float32 with other orders of summation; measured differences
// are at most 1.1e-6.
#include "check.h"
#include "golden.h"

using namespace brushwork;
using namespace brushwork::test;

constexpr double kTolerance = 3e-6;

TEST(text_encoder_equals_transformers) {
  const auto model = load_tiny_model();
  const auto ids = torch::cat({token_tensor(0), token_tensor(1)});
  const auto golden = golden_tensors("tiny_forward.safetensors");
  CHECK_AT_MOST(relative_error(model.text_encoder.encode(ids), golden.tensor("text_encoder")), kTolerance);
}

TEST(vae_posterior_equals_diffusers) {
  const auto model = load_tiny_model();
  const auto golden = golden_tensors("tiny_forward.safetensors");
  const auto posterior = model.vae.encode(torch::cat({pixels(0, 32, 48), pixels(1, 32, 48)}));
  CHECK_AT_MOST(relative_error(posterior.mean, golden.tensor("vae.mean")), kTolerance);
  CHECK_AT_MOST(relative_error(posterior.std, golden.tensor("vae.std")), kTolerance);
}

TEST(vae_decoder_equals_diffusers) {
  const auto model = load_tiny_model();
  const auto golden = golden_tensors("tiny_forward.safetensors");
  CHECK_AT_MOST(relative_error(model.vae.decode(randn(1, {1, 4, 4, 6})), golden.tensor("vae.decoded")), kTolerance);
}

TEST(unet_equals_diffusers) {
  const torch::NoGradGuard no_grad;
  const auto model = load_tiny_model();
  const auto golden = golden_tensors("tiny_forward.safetensors");
  const auto text = model.unet.prepare_text(golden.tensor("text_encoder"));
  const auto predicted = model.unet.forward(randn(2, {2, 4, 16, 16}), torch::tensor({3, 721}), text);
  CHECK_AT_MOST(relative_error(predicted, golden.tensor("unet")), kTolerance);
  CHECK(predicted.scalar_type() == torch::kFloat32);
}

TEST(unet_equals_diffusers_on_a_wide_image) {
  const torch::NoGradGuard no_grad;
  const auto model = load_tiny_model();
  const auto golden = golden_tensors("tiny_forward.safetensors");
  const auto text = model.unet.prepare_text(golden.tensor("text_encoder")).select(torch::tensor({0}));
  const auto predicted = model.unet.forward(randn(3, {1, 4, 6, 20}), torch::tensor({999}), text);
  CHECK_AT_MOST(relative_error(predicted, golden.tensor("unet.wide")), kTolerance);
}

TEST(unet_in_half_precision_stays_near) {
  const torch::NoGradGuard no_grad;
  const auto golden = golden_tensors("tiny_forward.safetensors");
  // One ulp of the type, times the growth over some forty layers.
  for (const auto& [dtype, tolerance] : {std::pair{torch::kBFloat16, 3e-2}, std::pair{torch::kFloat16, 4e-3}}) {
    const auto model = load_tiny_model(dtype);
    const auto text = model.unet.prepare_text(golden.tensor("text_encoder"));
    const auto predicted = model.unet.forward(randn(2, {2, 4, 16, 16}), torch::tensor({3, 721}), text);
    CHECK_AT_MOST(relative_error(predicted, golden.tensor("unet")), tolerance);
  }
}

TEST(unet_gives_the_same_bits_again) {
  const torch::NoGradGuard no_grad;
  const auto model = load_tiny_model();
  const auto text = model.unet.prepare_text(golden_tensors("tiny_forward.safetensors").tensor("text_encoder"));
  const auto run = [&] { return model.unet.forward(randn(2, {2, 4, 16, 16}), torch::tensor({3, 721}), text); };
  const auto first = run();
  for (int i = 0; i < 5; ++i) CHECK(torch::equal(run(), first));
}

TEST(latent_sides_that_the_unet_can_not_halve_are_refused) {
  const auto model = load_tiny_model();
  const auto text = model.unet.prepare_text(randn(1, {1, 77, 32}));
  CHECK_ERROR(model.unet.forward(randn(3, {1, 4, 16, 15}), torch::tensor({1}), text), ErrorCode::kInvalidRequest,
              "multiples of 2");
}

TEST(pixel_sides_that_the_vae_can_not_halve_are_refused) {
  const auto model = load_tiny_model();
  CHECK_ERROR(model.vae.encode(pixels(0, 32, 30)), ErrorCode::kImageInvalid, "multiples of 4");
}

TEST(token_ids_outside_the_vocabulary_are_refused) {
  const auto model = load_tiny_model();
  CHECK_ERROR(model.text_encoder.encode(torch::full({1, 77}, 1024, torch::kInt64)), ErrorCode::kInvalidRequest,
              "vocabulary of 1024");
  CHECK_ERROR(model.text_encoder.encode(torch::zeros({1, 78}, torch::kInt64)), ErrorCode::kInvalidRequest, "77 tokens");
}

TEST_MAIN()
