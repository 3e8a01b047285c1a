#include "core/model_io/lora_import.h"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>
#include <string>

#include "check.h"
#include "core/model_io/json.h"
#include "core/model_io/lora_export.h"
#include "core/model_io/safetensors.h"
#include "tiny_job.h"

using namespace brushwork;
using namespace brushwork::test;

using Tensors = std::map<std::string, torch::Tensor>;

static const std::string kModule = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q";  // 32 into 32

static const LoraLayout& layout() { return tiny_model().unet.lora_layout(); }

static LoraParameters ramp_lora(double alpha, const LoraLayout& of = layout()) {
  LoraParameters lora(of, {8, alpha, 0.1}, torch::kCPU);
  const torch::NoGradGuard no_grad;
  lora.values().detach().copy_(torch::linspace(-1, 1, lora.parameter_count()));
  return lora;
}

static LoraParameters load(const std::string& path) { return load_with_lora(path).lora; }

static std::string write(const std::string& name, const Tensors& tensors,
                         const std::map<std::string, std::string>& metadata = {}) {
  const auto file = temporary_directory() / (name + ".safetensors");
  write_safetensors(file, tensors, metadata);
  return file;
}

static torch::Tensor change_of(const LoraParameters& lora, int64_t i) {
  return torch::matmul(lora.b(i), lora.a(i)) * lora.config().scale();
}

static int64_t index_of(const std::string& name) {
  for (size_t i = 0; i < layout().targets.size(); ++i) {
    if (layout().targets[i].name == name) return static_cast<int64_t>(i);
  }
  return -1;
}

TEST(each_of_our_own_files_gives_the_change_that_was_trained) {
  const auto trained = ramp_lora(24);
  const auto directory = temporary_directory() / "own";
  export_lora(trained, {"model", 64, PredictionType::kEpsilon, {}}, directory);
  for (const std::string path : {"/lora_weights.safetensors", "/kohya.safetensors", "/peft"}) {
    const auto loaded = load(directory + path);
    CHECK(loaded.config().rank == 8 && loaded.config().scale() == 1);
    for (int64_t i = 0; i < trained.module_count(); ++i) {
      CHECK_AT_MOST(relative_error(change_of(loaded, i), change_of(trained, i)), 1e-6);
    }
  }
}

TEST(files_with_a_text_encoder_are_read_whole) {
  const auto& model = tiny_model();
  const auto trained = ramp_lora(24, join_layouts(layout(), model.text_encoder.lora_layout()));
  const auto directory = temporary_directory() / "both";
  export_lora(trained, {"model", 64, PredictionType::kEpsilon, {}}, directory);
  for (const std::string path : {"/lora_weights.safetensors", "/kohya.safetensors", "/peft", "/peft/"}) {
    const auto loaded = load(directory + path);
    CHECK(loaded.layout().text_encoder && loaded.module_count() == trained.module_count());
    for (int64_t i = 0; i < trained.module_count(); ++i) {
      CHECK(loaded.targets()[static_cast<size_t>(i)].name == trained.targets()[static_cast<size_t>(i)].name);
      CHECK_AT_MOST(relative_error(change_of(loaded, i), change_of(trained, i)), 1e-6);
    }
  }
  // Without the UNet's half.
  const auto text_only = load(directory + "/peft_text_encoder");
  const int64_t first = text_only.layout().text_encoder->target;
  CHECK(text_only.b(first - 1).abs().sum().item<double>() == 0);
  CHECK_AT_MOST(relative_error(change_of(text_only, first), change_of(trained, first)), 1e-6);
}

TEST(older_diffusers_keys_without_a_header_count_as_they_are) {
  const auto down = torch::ones({2, 32}), up = torch::full({32, 2}, 3.0);
  const auto file = write("older", {{"unet." + kModule + ".lora.down.weight", down.to(torch::kHalf)},
                                    {"unet." + kModule + ".lora.up.weight", up.to(torch::kHalf)}});
  const auto loaded = load(file);
  CHECK(change_of(loaded, index_of(kModule)).equal(torch::full({32, 32}, 6.0)));
  // Modules that the file does not hold stay as they are.
  CHECK(change_of(loaded, index_of(kModule) + 1).abs().sum().item<double>() == 0);
}

TEST(modules_may_differ_in_rank_and_alpha) {
  const std::string other = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k";
  const auto flat = [](std::string name) {
    std::replace(name.begin(), name.end(), '.', '_');
    return "lora_unet_" + name;
  };
  const auto loaded = load(write("ranks", {{flat(kModule) + ".lora_down.weight", torch::ones({1, 32})},
                                           {flat(kModule) + ".lora_up.weight", torch::ones({32, 1})},
                                           {flat(kModule) + ".alpha", torch::tensor(5.0)},
                                           {flat(other) + ".lora_down.weight", torch::ones({4, 32})},
                                           {flat(other) + ".lora_up.weight", torch::ones({32, 4})},
                                           {flat(other) + ".alpha", torch::tensor(2.0)}}));
  CHECK(loaded.config().rank == 4);
  CHECK(change_of(loaded, index_of(kModule)).equal(torch::full({32, 32}, 5.0)));
  CHECK(change_of(loaded, index_of(other)).equal(torch::full({32, 32}, 2.0)));
}

TEST(the_scale_of_a_header_counts_rank_stabilised_too) {
  const auto scale = [](const std::string& name, const std::string& header) {
    const auto loaded = load(write(name,
                                   {{"unet." + kModule + ".lora_A.weight", torch::ones({4, 32})},
                                    {"unet." + kModule + ".lora_B.weight", torch::ones({32, 4})}},
                                   {{"lora_adapter_metadata", header}}));
    return change_of(loaded, index_of(kModule))[0][0].item<double>() / 4;
  };
  CHECK(scale("plain", R"({"unet.r": 4, "unet.lora_alpha": 6})") == 1.5);
  CHECK(scale("rslora", R"({"unet.r": 4, "unet.lora_alpha": 6, "unet.use_rslora": true})") == 3);
  // The tensors tell the rank, whatever `r` and `rank_pattern` say.
  CHECK(scale("pattern", R"({"unet.r": 8, "unet.lora_alpha": 6, "unet.rank_pattern": {"to_q": 4},
                             "unet.alpha_pattern": {"to_k": 1, "to_q": 3, "attn1.to_q": 2}})") == 0.5);
  CHECK(scale("no-pattern", R"({"unet.r": 8, "unet.lora_alpha": 6, "unet.alpha_pattern": {"o_q": 1}})") == 1.5);
}

TEST(an_alpha_of_the_text_encoder_is_found_with_and_without_the_level_of_its_names) {
  const std::string path = "encoder.layers.0.self_attn.q_proj";
  for (const std::string in_keys : {"", "text_model."}) {
    for (const std::string in_pattern : {"", "text_model."}) {
      const auto loaded = load(write("levels",
                                     {{"text_encoder." + in_keys + path + ".lora_A.weight", torch::ones({4, 32})},
                                      {"text_encoder." + in_keys + path + ".lora_B.weight", torch::ones({32, 4})}},
                                     {{"lora_adapter_metadata",
                                       R"({"text_encoder.r": 4, "text_encoder.lora_alpha": 8,
                                           "text_encoder.alpha_pattern": {")" +
                                           in_pattern + path + R"(": 2}})"}}));
      const auto& targets = loaded.targets();
      const auto found = std::find_if(targets.begin(), targets.end(),
                                      [&](const LoraTarget& target) { return target.name == "text_model." + path; });
      CHECK(change_of(loaded, found - targets.begin())[0][0].item<double>() == 4 * 2.0 / 4);
    }
  }
}

static void refuse(const std::string& part, const Tensors& tensors,
                   const std::map<std::string, std::string>& metadata = {}) {
  const auto file = write("refused", tensors, metadata);
  CHECK_ERROR(load(file), ErrorCode::kInvalidRequest, part);
  CHECK_ERROR(load(file), ErrorCode::kInvalidRequest, file);
}

static Tensors with(const std::string& key, const torch::Tensor& tensor = torch::ones({2})) {
  return {{"unet." + kModule + ".lora_A.weight", torch::ones({4, 32})},
          {"unet." + kModule + ".lora_B.weight", torch::ones({32, 4})},
          {key, tensor}};
}

TEST(other_kinds_are_refused_by_name) {
  refuse("no LoRA but other weights", {{"down_blocks.0.resnets.0.conv1.bias", torch::ones({2})}});
  refuse("SDXL", with("lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight"));
  refuse("SDXL", with("lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.lora_down.weight"));
  refuse("LoHa", with("lora_unet_mid_block_attentions_0_proj_in.hada_w1_a"));
  refuse("LoKr", with("lora_unet_mid_block_attentions_0_proj_in.lokr_w1"));
  refuse("DoRA", with("unet." + kModule + ".lora_magnitude_vector"));
  refuse("OFT", with("lora_unet_mid_block_attentions_0_proj_in.oft_blocks"));
  refuse("IA3", with("lora_unet_mid_block_attentions_0_proj_in.on_input"));
  refuse("GLoRA", with("lora_unet_mid_block_attentions_0_proj_in.a1.weight"));
  refuse("whole differences", with("lora_unet_mid_block_attentions_0_proj_in.diff"));
  refuse("norms", with("lora_unet_mid_block_attentions_0_norm.w_norm"));
  refuse("another architecture", with("transformer.single_transformer_blocks.0.attn.to_k.lora_A.weight"));
}

TEST(files_that_do_not_fit_are_refused) {
  refuse("holds nothing", {});
  refuse("no part of a LoRA", with("unet." + kModule + ".weight"));
  const std::string missing = "unet.down_blocks.7.attentions.0.attn1.to_q";
  refuse("no layer for its \"" + missing,
         {{missing + ".lora_A.weight", torch::ones({4, 32})}, {missing + ".lora_B.weight", torch::ones({32, 4})}});
  const std::string conv = "unet.mid_block.resnets.0.conv1";  // (64, 64, 3, 3)
  refuse("another base model", {{conv + ".lora_A.weight", torch::ones({4, 64, 1, 1})},
                                {conv + ".lora_B.weight", torch::ones({64, 4, 1, 1})}});
  refuse("do not fit each other", {{conv + ".lora_A.weight", torch::ones({4, 64, 3, 3})},
                                   {conv + ".lora_B.weight", torch::ones({64, 4, 3, 3})}});
  refuse("do not fit each other", {{conv + ".lora_down.weight", torch::ones({4, 64, 3, 3})},
                                   {conv + ".lora_mid.weight", torch::ones({4, 4, 3, 3})},
                                   {conv + ".lora_up.weight", torch::ones({64, 4, 1, 1})}});
  refuse("half of its pair", {{conv + ".lora_mid.weight", torch::ones({4, 4, 3, 3})}});
  refuse("not finite", {{conv + ".lora_A.weight", torch::full({4, 64, 3, 3}, INFINITY)},
                        {conv + ".lora_B.weight", torch::ones({64, 4, 1, 1})}});
  refuse("contradicts itself",
         with("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_up.weight",
              torch::zeros({32, 4})));
  refuse("half of its pair", {{"unet." + kModule + ".lora_A.weight", torch::ones({4, 32})}});
  refuse("another base model", {{"unet." + kModule + ".lora_A.weight", torch::ones({4, 320})},
                                {"unet." + kModule + ".lora_B.weight", torch::ones({320, 4})}});
  refuse("no number", with("unet." + kModule + ".alpha", torch::ones({2})));
  refuse("not finite", with("unet." + kModule + ".alpha", torch::tensor(NAN)));
  refuse("not JSON", with("unet." + kModule + ".alpha", torch::tensor(1.0)), {{"lora_adapter_metadata", "{"}});
  refuse("alpha_pattern", with("unet." + kModule + ".alpha", torch::tensor(1.0)),
         {{"lora_adapter_metadata", R"({"unet.r": 4, "unet.lora_alpha": 4, "unet.alpha_pattern": {".*to_q": 1}})"}});
  refuse("unet.lora_alpha", with("unet." + kModule + ".alpha", torch::tensor(1.0)), {{"lora_adapter_metadata", "{}"}});
  CHECK_ERROR(load(temporary_directory() / "missing"), ErrorCode::kInvalidRequest, "can't be opened");
}

TEST_MAIN()
