#include "core/model_io/lora_export.h"

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "check.h"
#include "core/model_io/json.h"
#include "core/model_io/safetensors.h"
#include "tiny_job.h"

using namespace brushwork;
using namespace brushwork::test;

constexpr int64_t kRank = 8;
constexpr double kAlpha = 32;

// Parameters that are all different, so that no key can be exchanged for another unnoticed.
static LoraParameters ramp_lora(bool with_text_encoder = false) {
  const auto& model = tiny_model();
  const auto layout = with_text_encoder ? join_layouts(model.unet.lora_layout(), model.text_encoder.lora_layout())
                                        : model.unet.lora_layout();
  LoraParameters lora(layout, {kRank, kAlpha, 0.1}, torch::kCPU);
  const torch::NoGradGuard no_grad;
  lora.values().detach().copy_(torch::linspace(-1, 1, lora.parameter_count()));
  return lora;
}

static std::string export_ramp(const std::string& name, const std::vector<PictureSize>& sizes = {{512, 512, 9}},
                               bool with_text_encoder = false) {
  const auto directory = temporary_directory() / name;
  export_lora(ramp_lora(with_text_encoder),
              {"stable-diffusion-v1-5/stable-diffusion-v1-5", 512, PredictionType::kEpsilon, sizes}, directory);
  return directory;
}

static std::string kohya_key(std::string name) {
  std::replace(name.begin(), name.end(), '.', '_');
  return "lora_unet_" + name;
}

// The rule of each reader (anchors: diffusers takes lora_alpha / r of the header, PEFT of the configuration, kohya the
// alpha tensor by the down weight's rows).
TEST(all_three_files_give_the_same_change_of_every_module) {
  const auto directory = export_ramp("change");
  const auto lora = ramp_lora();
  const SafetensorsFile diffusers(directory + "/lora_weights.safetensors");
  const SafetensorsFile peft(directory + "/peft/adapter_model.safetensors");
  const SafetensorsFile kohya(directory + "/kohya.safetensors");
  const auto header = Json::parse(diffusers.metadata().at("lora_adapter_metadata"));
  const double diffusers_scale = header.at("unet.lora_alpha").get<double>() / header.at("unet.r").get<double>();
  const JsonFile config(directory + "/peft/adapter_config.json");
  const double peft_scale = config.number("lora_alpha", 0) / config.number("r", 1);

  const auto count = static_cast<size_t>(lora.module_count());
  CHECK(count == 32);
  CHECK(diffusers.entries().size() == 2 * count && peft.entries().size() == 2 * count);
  CHECK(kohya.entries().size() == 3 * count);
  for (int64_t i = 0; i < lora.module_count(); ++i) {
    const auto& name = lora.targets()[static_cast<size_t>(i)].name;
    const auto expected = torch::matmul(lora.b(i), lora.a(i)) * (kAlpha / kRank);
    const auto change = [](const SafetensorsFile& file, const std::string& up, const std::string& down, double scale) {
      return torch::matmul(file.tensor(up), file.tensor(down)) * scale;
    };
    const auto unet = "unet." + name, model = "base_model.model." + name, flat = kohya_key(name);
    // alpha / rank = 4 is a power of two, so folding it loses nothing.
    CHECK(change(diffusers, unet + ".lora_B.weight", unet + ".lora_A.weight", diffusers_scale).equal(expected));
    CHECK(change(peft, model + ".lora_B.weight", model + ".lora_A.weight", peft_scale).equal(expected));
    const auto alpha = kohya.tensor(flat + ".alpha");
    CHECK(alpha.dim() == 0);
    const auto down = flat + ".lora_down.weight";
    const double kohya_scale = alpha.item<double>() / static_cast<double>(kohya.tensor(down).size(0));
    CHECK(change(kohya, flat + ".lora_up.weight", down, kohya_scale).equal(expected));
  }
}

TEST(the_text_encoders_modules_are_in_all_formats) {
  const auto directory = export_ramp("text-encoder", {{512, 512, 9}}, /*with_text_encoder=*/true);
  const auto lora = ramp_lora(/*with_text_encoder=*/true);
  const SafetensorsFile diffusers(directory + "/lora_weights.safetensors");
  const SafetensorsFile peft(directory + "/peft/adapter_model.safetensors");
  const SafetensorsFile peft_text(directory + "/peft_text_encoder/adapter_model.safetensors");
  const SafetensorsFile kohya(directory + "/kohya.safetensors");
  const int64_t first = lora.layout().text_encoder->target;
  CHECK(first == 32 && lora.module_count() == 40);
  CHECK(diffusers.entries().size() == 2 * 40 && kohya.entries().size() == 3 * 40 && peft.entries().size() == 2 * 32);
  // Under the names of transformers before and since 5.6.
  CHECK(peft_text.entries().size() == 2 * 2 * 8);
  for (int64_t i = first; i < lora.module_count(); ++i) {
    const auto& name = lora.targets()[static_cast<size_t>(i)].name;
    CHECK(name.rfind("text_model.encoder.layers.", 0) == 0);
    const auto a = lora.a(i), b = lora.b(i);
    CHECK(diffusers.tensor("text_encoder." + name + ".lora_A.weight").equal(a));
    CHECK(diffusers.tensor("text_encoder." + name + ".lora_B.weight").equal(b * (kAlpha / kRank)));
    for (const auto& path : {name, name.substr(std::string("text_model.").size())}) {
      CHECK(peft_text.tensor("base_model.model." + path + ".lora_A.weight").equal(a));
      CHECK(peft_text.tensor("base_model.model." + path + ".lora_B.weight").equal(b));
    }
    auto flat = "lora_te_" + name;
    std::replace(flat.begin(), flat.end(), '.', '_');
    CHECK(kohya.tensor(flat + ".lora_down.weight").equal(a) && kohya.tensor(flat + ".lora_up.weight").equal(b));
    CHECK(kohya.tensor(flat + ".alpha").item<double>() == kAlpha);
  }
  CHECK(kohya.contains("lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight"));

  const auto header = Json::parse(diffusers.metadata().at("lora_adapter_metadata"));
  CHECK((header.at("text_encoder.target_modules") == Json{"k_proj", "out_proj", "q_proj", "v_proj"}));
  CHECK((header.at("unet.target_modules") == Json{"to_k", "to_out.0", "to_q", "to_v"}));
  CHECK(header.at("text_encoder.r") == kRank && header.at("text_encoder.lora_alpha") == kRank);
  CHECK(header.at("text_encoder.lora_dropout") == 0.0);
  const JsonFile config(directory + "/peft_text_encoder/adapter_config.json");
  CHECK(config.integer("lora_alpha") == 32 && config.integer("r") == kRank);
  CHECK(config.value().at("auto_mapping").at("base_model_class") == "CLIPTextModel");
}

TEST(an_export_without_a_text_encoder_leaves_none_of_an_earlier_one) {
  const auto directory = export_ramp("earlier", {{512, 512, 9}}, /*with_text_encoder=*/true);
  CHECK(std::filesystem::exists(directory + "/peft_text_encoder/adapter_config.json"));
  CHECK(export_ramp("earlier") == directory);
  CHECK(!std::filesystem::exists(directory + "/peft_text_encoder"));
}

TEST(keys_are_those_that_the_readers_know) {
  const auto directory = export_ramp("keys");
  const std::string module = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0";
  CHECK(SafetensorsFile(directory + "/lora_weights.safetensors").contains("unet." + module + ".lora_A.weight"));
  CHECK(SafetensorsFile(directory + "/peft/adapter_model.safetensors")
            .contains("base_model.model." + module + ".lora_B.weight"));
  CHECK(SafetensorsFile(directory + "/kohya.safetensors")
            .contains("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0.lora_up.weight"));
}

TEST(the_diffusers_header_is_a_complete_lora_config_with_alpha_folded) {
  const SafetensorsFile file(export_ramp("diffusers-header") + "/lora_weights.safetensors");
  CHECK(file.metadata().size() == 2 && file.metadata().at("format") == "pt");
  const auto header = Json::parse(file.metadata().at("lora_adapter_metadata"));
  CHECK(header.at("unet.r") == kRank && header.at("unet.lora_alpha") == kRank);
  CHECK((header.at("unet.target_modules") == Json{"to_k", "to_out.0", "to_q", "to_v"}));
  for (const auto& item : header.items()) CHECK(item.key().rfind("unet.", 0) == 0);
  // diffusers would go on dropping inputs when it draws.
  CHECK(header.at("unet.lora_dropout") == 0.0);
}

TEST(the_peft_config_holds_the_raw_alpha) {
  const JsonFile config(export_ramp("peft-config") + "/peft/adapter_config.json");
  CHECK(config.integer("r") == kRank && config.integer("lora_alpha") == 32);
  CHECK(config.string("peft_type") == "LORA" && config.string("bias") == "none");
  CHECK(config.string("base_model_name_or_path") == "stable-diffusion-v1-5/stable-diffusion-v1-5");
  CHECK(config.value().at("auto_mapping").at("base_model_class") == "UNet2DConditionModel");
}

TEST(the_kohya_header_is_the_minimum_and_nothing_of_the_customers) {
  const SafetensorsFile file(export_ramp("kohya-header") + "/kohya.safetensors");
  const std::map<std::string, std::string> expected = {{"format", "pt"},
                                                       {"ss_v2", "False"},
                                                       {"ss_base_model_version", "sd_v1"},
                                                       {"ss_network_module", "networks.lora"},
                                                       {"ss_network_dim", "8"},
                                                       {"ss_network_alpha", "32.0"},
                                                       {"ss_network_args", "{}"},
                                                       {"modelspec.sai_model_spec", "1.0.1"},
                                                       {"modelspec.architecture", "stable-diffusion-v1/lora"},
                                                       {"modelspec.implementation", "diffusers"},
                                                       {"modelspec.title", "Brushwork style LoRA"},
                                                       {"modelspec.resolution", "512x512"},
                                                       {"modelspec.prediction_type", "epsilon"}};
  CHECK(file.metadata() == expected);
}

TEST(the_kohya_header_names_sizes_where_there_are_several) {
  const SafetensorsFile file(export_ramp("sizes", {{448, 576, 3}, {576, 448, 12}}) + "/kohya.safetensors");
  CHECK(file.metadata().at("ss_enable_bucket") == "True");
  CHECK(file.metadata().at("modelspec.resolution") == "512x512");
  const auto buckets = Json::parse(file.metadata().at("ss_bucket_info")).at("buckets");
  CHECK((buckets ==
         Json{{"0", {{"resolution", {448, 576}}, {"count", 3}}}, {"1", {{"resolution", {576, 448}}, {"count", 12}}}}));
}

TEST(the_same_parameters_give_the_same_bytes) {
  const auto first = export_ramp("first"), second = export_ramp("second");
  for (const std::string file : {"/lora_weights.safetensors", "/peft/adapter_model.safetensors",
                                 "/peft/adapter_config.json", "/kohya.safetensors"}) {
    CHECK(!read_file(first + file).empty() && read_file(first + file) == read_file(second + file));
  }
}

TEST(a_directory_that_cannot_be_made_is_named) {
  const auto blocked = temporary_directory() / "blocked";
  std::ofstream(blocked) << "a file";
  CHECK_ERROR(export_lora(ramp_lora(), {"model", 512, PredictionType::kEpsilon, {}}, blocked + "/out"),
              ErrorCode::kInternal, blocked);
}

TEST_MAIN()
