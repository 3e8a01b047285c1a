// What text encoder and UNet make of LoRA files that change every kind of layer, against diffusers and PEFT (golden
// files of test/reference/lora_import_golden.py).
#include <string>

#include "check.h"
#include "core/lora/lora_step.h"
#include "golden.h"

using namespace brushwork;
using namespace brushwork::test;

// Float32 on both sides; the reference adds a layer's change to its result, we most of them to its weight.
// Measured: at most 1.1e-6.
constexpr double kTolerance = 3e-6;

static const SafetensorsFile& golden() {
  static const SafetensorsFile file = golden_tensors("lora_import.safetensors");
  return file;
}

static std::string lora_file(const std::string& name) { return GOLDEN_DIRECTORY "/lora_import/" + name; }

static torch::Tensor predict(const BaseModel& model, const LoraParameters& lora) {
  const torch::NoGradGuard no_grad;
  LoraStep step(lora, model.unet.dtype());
  return model.unet.forward(golden().tensor("sample"), golden().tensor("timesteps"),
                            model.unet.prepare_text(golden().tensor("text")), &step);
}

static torch::Tensor encode(const BaseModel& model, const LoraParameters& lora) {
  const torch::NoGradGuard no_grad;
  LoraStep step(lora, torch::kFloat32);
  return model.text_encoder.encode(golden().tensor("token_ids"), &step);
}

static void check_file(const std::string& name, const std::string& path) {
  const auto [model, lora] = load_with_lora(lora_file(path));
  const double unet = relative_error(predict(model, lora), golden().tensor(name + ".unet"));
  const double text = relative_error(encode(model, lora), golden().tensor(name + ".text_encoder"));
  std::printf("# %s: unet %.1e, text encoder %.1e\n", name.c_str(), unet, text);
  CHECK_AT_MOST(unet, kTolerance);
  CHECK_AT_MOST(text, kTolerance);
}

TEST(a_kohya_file_of_all_kinds_of_layers_is_read_as_diffusers_reads_it) { check_file("kohya", "kohya.safetensors"); }

TEST(a_diffusers_file_with_an_alpha_for_some_layers_is_read_as_diffusers_reads_it) {
  check_file("diffusers", "diffusers.safetensors");
}

TEST(a_peft_directory_of_all_kinds_of_layers_is_read_as_peft_reads_it) { check_file("peft", "peft"); }

TEST(a_tucker_decomposition_and_a_linear_layer_in_the_form_of_a_convolution_follow_the_rule) {
  check_file("tucker", "tucker.safetensors");
}

TEST(in_half_precision_a_file_means_the_same) {
  const auto half = load_with_lora(lora_file("kohya.safetensors"), torch::kHalf);
  const double error = relative_error(predict(half.model, half.lora), golden().tensor("kohya.unet"));
  std::printf("# fp16: %.1e\n", error);
  CHECK_AT_MOST(error, 5e-3);
}

TEST_MAIN()
