// What diffusers and PEFT make of our weight files: the headers, keys and shapes that they were given, and what UNet
// and text encoder compute once they have loaded them (golden files of test/reference/lora_forward_golden.py).
#include <array>
#include <string>

#include "check.h"
#include "core/lora/lora_step.h"
#include "core/model_io/lora_export.h"
#include "golden.h"

using namespace brushwork;
using namespace brushwork::test;

namespace {

constexpr int64_t kRank = 4;
constexpr double kAlpha = 6.0;  // alpha / rank is not 1, so that a reader that misses it shows
// A reader that goes on dropping inputs shows.
constexpr double kDropout = 0.1;
constexpr std::array kReaders = {"diffusers", "peft", "kohya"};
// CASES of the script: a LoRA of the UNet, and one of the text encoder as well.
constexpr const char* kUNet = "";
constexpr const char* kTextEncoder = "_text_encoder";

// draw_lora() of the script: the same bits.
LoraParameters draw_lora(const std::string& which, double alpha = kAlpha) {
  const auto& model = tiny_model();
  auto layout = model.unet.lora_layout();
  if (which == kTextEncoder) layout = join_layouts(layout, model.text_encoder.lora_layout());
  LoraParameters lora(layout, {kRank, alpha, kDropout}, torch::kCPU);
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

// The exports of that LoRA, with the headers of the script's job.
std::string exported(const std::string& which) {
  const auto directory = temporary_directory() / ("exports" + which);
  export_lora(draw_lora(which), {"model", 64, PredictionType::kEpsilon, {}}, directory);
  return directory;
}

SafetensorsFile golden_outputs(const std::string& which) {
  return golden_tensors("lora_forward" + which + ".safetensors");
}

torch::Tensor predict(const LoraParameters& lora, const SafetensorsFile& golden) {
  const torch::NoGradGuard no_grad;
  const auto& unet = tiny_model().unet;
  LoraStep step(lora, unet.dtype());
  return unet.forward(golden.tensor("sample"), golden.tensor("timesteps"), unet.prepare_text(golden.tensor("text")),
                      &step);
}

torch::Tensor encode(const LoraParameters& lora, const SafetensorsFile& golden) {
  const torch::NoGradGuard no_grad;
  LoraStep step(lora, torch::kFloat32);
  return tiny_model().text_encoder.encode(golden.tensor("token_ids"), &step);
}

// `prefix`: of the outputs of one network.
void check_equals_readers(const torch::Tensor& output, const SafetensorsFile& golden, const std::string& prefix = "") {
  CHECK(relative_error(output, golden.tensor(prefix + "base")) > 0.1);
  for (const std::string reader : kReaders) {
    const double error = relative_error(output, golden.tensor(prefix + reader));
    std::printf("# %s%s: %.1e\n", prefix.c_str(), reader.c_str(), error);
    CHECK_AT_MOST(error, 3e-6);
  }
}

}  // namespace

TEST(the_files_have_the_keys_and_shapes_that_the_readers_were_given) {
  for (const std::string which : {kUNet, kTextEncoder}) {
    const auto directory = exported(which);
    const auto golden = golden_json("lora_files" + which + ".json");
    CHECK(golden.size() == (which == kUNet ? 3 : 4));
    for (const auto& [file, keys] : golden.items()) {
      Json actual = Json::object();
      const SafetensorsFile opened(directory + "/" + file);
      for (const auto& [key, entry] : opened.entries()) actual[key] = entry.shape;
      CHECK(actual == keys);
    }
  }
}

// Where this fails because the exporter writes others on purpose: the script's --program.
TEST(the_headers_and_configurations_are_those_that_the_readers_were_given) {
  for (const std::string which : {kUNet, kTextEncoder}) {
    const auto directory = exported(which);
    const auto golden = golden_json("lora_headers.json").at(which);
    CHECK(golden.size() == (which == kUNet ? 4 : 6));
    for (const auto& [file, header] : golden.items()) {
      const auto path = directory + "/" + file;
      CHECK(header == (header.is_string() ? Json(read_file(path)) : Json(SafetensorsFile(path).metadata())));
    }
  }
}

TEST(the_unet_predicts_what_diffusers_and_peft_do_with_the_files) {
  const auto golden = golden_outputs(kUNet);
  check_equals_readers(predict(draw_lora(kUNet), golden), golden);
}

TEST(both_networks_compute_what_diffusers_and_peft_do_with_the_files) {
  const auto golden = golden_outputs(kTextEncoder);
  const auto lora = draw_lora(kTextEncoder);
  check_equals_readers(predict(lora, golden), golden);
  check_equals_readers(encode(lora, golden), golden, "text_encoder.");
}

TEST(an_alpha_that_is_off_by_one_percent_is_seen_in_the_outputs) {
  const auto golden = golden_outputs(kTextEncoder);
  const auto lora = draw_lora(kTextEncoder, 1.01 * kAlpha);
  CHECK(relative_error(predict(lora, golden), golden.tensor("peft")) > 1e-3);
  CHECK(relative_error(encode(lora, golden), golden.tensor("text_encoder.peft")) > 1e-3);
}

TEST_MAIN()
