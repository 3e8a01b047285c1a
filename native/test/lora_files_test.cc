// What diffusers and PEFT make of our three weight files: the keys that they were given, and what the UNet predicts
// once they have loaded them (golden files of test/reference/lora_forward_golden.py).
#include "check.h"
#include "core/lora/lora_step.h"
#include "core/model_io/lora_export.h"
#include "golden.h"

using namespace brushwork;
using namespace brushwork::test;

namespace {

constexpr int64_t kRank = 4;
constexpr double kAlpha = 6.0;  // alpha / rank is not 1, so that a reader that misses it shows

// draw_lora() of the script: the same bits.
LoraParameters draw_lora(const UNet& unet, double alpha = kAlpha) {
  LoraParameters lora(unet.lora_layout(), {kRank, alpha, 0.0}, torch::kCPU);
  const auto generator = make_generator(12);
  const auto draw = [&](torch::Tensor target) {
    target.copy_(torch::randint(-1000, 1001, target.sizes(), generator, torch::dtype(torch::kInt64)) / 4000);
  };
  const torch::NoGradGuard no_grad;
  for (int64_t i = 0; i < lora.module_count(); ++i) {
    draw(lora.a(i));
    draw(lora.b(i));
  }
  return lora;
}

torch::Tensor predict(const UNet& unet, const LoraParameters& lora, const SafetensorsFile& golden) {
  const torch::NoGradGuard no_grad;
  LoraStep step(lora, unet.dtype());
  return unet.forward(golden.tensor("sample"), golden.tensor("timesteps"), unet.prepare_text(golden.tensor("text")),
                      &step);
}

}  // namespace

TEST(the_files_have_the_keys_and_shapes_that_the_readers_were_given) {
  const auto model = load_tiny_model();
  const auto directory = temporary_directory() / "files";
  export_lora(draw_lora(model.unet), {"model", 512, PredictionType::kEpsilon, {}}, directory);
  const auto golden = golden_json("lora_files.json");
  CHECK(golden.size() == 3);
  for (const auto& [file, keys] : golden.items()) {
    Json actual = Json::object();
    const SafetensorsFile opened(directory + "/" + file);
    for (const auto& [key, entry] : opened.entries()) actual[key] = entry.shape;
    CHECK(actual == keys);
  }
}

TEST(the_unet_predicts_what_diffusers_and_peft_do_with_the_files) {
  const auto model = load_tiny_model();
  const auto golden = golden_tensors("lora_forward.safetensors");
  const auto predicted = predict(model.unet, draw_lora(model.unet), golden);
  CHECK(relative_error(predicted, golden.tensor("base")) > 0.1);
  for (const char* reader : {"diffusers", "peft", "kohya"}) {
    CHECK_AT_MOST(relative_error(predicted, golden.tensor(reader)), 3e-6);
  }
}

TEST(an_alpha_that_is_off_by_one_percent_is_seen_in_the_prediction) {
  const auto model = load_tiny_model();
  const auto golden = golden_tensors("lora_forward.safetensors");
  const auto predicted = predict(model.unet, draw_lora(model.unet, 1.01 * kAlpha), golden);
  CHECK(relative_error(predicted, golden.tensor("peft")) > 1e-3);
}

TEST_MAIN()
