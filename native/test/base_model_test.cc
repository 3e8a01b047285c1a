// Random base models and what `load_base_model` refuses.
#include "core/model_io/base_model.h"

#include <filesystem>
#include <functional>

#include "check.h"
#include "core/model/weights.h"
#include "golden.h"

using namespace brushwork;
using namespace brushwork::test;

namespace {

constexpr auto kCode = ErrorCode::kModelLoadFailed;

// A tiny model on disk that a test may damage.
struct ModelDirectory {
  TemporaryDirectory directory;

  ModelDirectory() { write_random_base_model(directory.path(), "tiny", 1); }

  void edit_json(const std::string& name, const std::function<void(Json&)>& edit) const {
    Json json = Json::parse(read_file(directory / name));
    edit(json);
    write_file_atomically(directory / name, json.dump());
  }
  void edit_weights(const std::string& name,
                    const std::function<void(std::map<std::string, torch::Tensor>&)>& edit) const {
    std::map<std::string, torch::Tensor> tensors;
    const SafetensorsFile file(directory / name);
    for (const auto& [key, entry] : file.entries()) tensors[key] = file.tensor(key);
    edit(tensors);
    write_safetensors(directory / name, tensors, file.metadata());
  }
  BaseModel load() const { return load_base_model(directory.path(), {}); }
};

constexpr const char* kUnetWeights = "unet/diffusion_pytorch_model.safetensors";

// Shapes without memory: a full-size model on the meta device.
class ShapesOnly : public WeightSource {
 public:
  bool contains(const std::string&) const override { return true; }
  torch::Tensor take(const std::string&, torch::IntArrayRef shape) override {
    return torch::empty(shape, torch::dtype(torch::kFloat32).device(torch::kMeta));
  }
};

}  // namespace

TEST(weight_keys_and_shapes_equal_diffusers) {
  const Json golden = golden_json("weight_keys.json");
  for (const auto& [preset, components] : golden.items()) {
    const TemporaryDirectory directory;
    write_random_base_model(directory.path(), preset, 0);
    for (const auto& [component, expected] : components.items()) {
      const auto name = component == "text_encoder" ? "/model.safetensors" : "/diffusion_pytorch_model.safetensors";
      Json actual = Json::object();
      const SafetensorsFile file(directory / component + name);
      for (const auto& [key, entry] : file.entries()) actual[key] = entry.shape;
      CHECK(actual == expected);
    }
    const auto model = load_base_model(directory.path(), {});
    CHECK(model.vae.scale_factor_px() == (preset == "tiny" ? 4 : 8));
    CHECK(model.unet.lora_layout().targets.size() == (preset == "tiny" ? 32 : 128));
  }
}

TEST(the_same_seed_writes_the_same_files_and_another_seed_others) {
  const TemporaryDirectory directory;
  write_random_base_model(directory / "a", "tiny", 5);
  write_random_base_model(directory / "b", "tiny", 5);
  write_random_base_model(directory / "c", "tiny", 6);
  for (const auto& item : std::filesystem::recursive_directory_iterator(directory / "a")) {
    if (!item.is_regular_file()) continue;
    const auto name = "/" + std::filesystem::relative(item.path(), directory / "a").string();
    CHECK(read_file(directory / "a" + name) == read_file(directory / "b" + name));
    const bool is_weights = name.ends_with(".safetensors");
    CHECK((read_file(directory / "a" + name) == read_file(directory / "c" + name)) == !is_weights);
  }
}

TEST(unknown_preset_is_refused) {
  CHECK_ERROR(write_random_base_model("/nowhere", "huge", 1), ErrorCode::kInvalidRequest, "tiny or small");
}

// The sizes of https://huggingface.co/stable-diffusion-v1-5/stable-diffusion-v1-5/blob/main/unet/config.json; the
// counts are those of diffusers and PEFT for that model.
TEST(stable_diffusion_1_5_has_its_published_size) {
  const TemporaryDirectory directory;
  write_file_atomically(directory / "config.json", R"({
    "_class_name": "UNet2DConditionModel", "_diffusers_version": "0.6.0", "act_fn": "silu", "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280], "center_input_sample": false, "cross_attention_dim": 768,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "downsample_padding": 1, "flip_sin_to_cos": true, "freq_shift": 0, "in_channels": 4, "layers_per_block": 2,
    "mid_block_scale_factor": 1, "norm_eps": 1e-05, "norm_num_groups": 32, "out_channels": 4, "sample_size": 64,
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"]})");
  ShapesOnly source;
  const UNet unet(UNetConfig::read(JsonFile(directory / "config.json")),
                  Weights(source, torch::kMeta, torch::kFloat32));
  CHECK(unet.parameter_count() == 859'520'964);
  CHECK(unet.lora_layout().targets.size() == 128);
  CHECK(LoraParameters(unet.lora_layout(), {8, 32.0, 0.1}, torch::kMeta).parameter_count() == 1'594'368);
}

TEST(scheduler_configuration_is_read) {
  const ModelDirectory model;
  model.edit_json("scheduler/scheduler_config.json", [](Json& json) { json["prediction_type"] = "v_prediction"; });
  const auto loaded = model.load();
  CHECK(loaded.scheduler.prediction_type == PredictionType::kVPrediction);
  CHECK(loaded.scheduler.num_train_timesteps == 1000);
  CHECK(loaded.scheduler.beta_start == 0.00085 && loaded.scheduler.beta_end == 0.012);
}

// What the three models compute, on some input.
struct Forward {
  torch::Tensor predicted, mean, decoded, text;
};

static Forward forward(const BaseModel& model) {
  const torch::NoGradGuard no_grad;
  const auto text = model.text_encoder.encode(token_tensor(1));
  return {model.unet.forward(randn(3, {1, 4, 8, 8}), torch::tensor({721}), model.unet.prepare_text(text)),
          model.vae.encode(pixels(0, 32, 32)).mean, model.vae.decode(randn(1, {1, 4, 4, 6})), text};
}

static void check_equal(const Forward& actual, const Forward& expected) {
  CHECK(torch::equal(actual.predicted, expected.predicted));
  CHECK(torch::equal(actual.mean, expected.mean));
  CHECK(torch::equal(actual.decoded, expected.decoded));
  CHECK(torch::equal(actual.text, expected.text));
}

constexpr const char* kAllWeights[] = {"unet/diffusion_pytorch_model.safetensors",
                                       "vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"};

static void convert_weights(const ModelDirectory& model, torch::Dtype dtype) {
  for (const auto* name : kAllWeights) {
    model.edit_weights(name, [&](auto& tensors) {
      for (auto& entry : tensors) entry.second = entry.second.to(dtype);
    });
  }
}

TEST(weights_in_half_precision_are_those_numbers_in_float32) {
  for (const auto dtype : {torch::kFloat16, torch::kBFloat16}) {
    const ModelDirectory rounded, half;
    const auto unrounded = forward(rounded.load());
    convert_weights(rounded, dtype);
    convert_weights(rounded, torch::kFloat32);
    convert_weights(half, dtype);
    CHECK(std::filesystem::file_size(half.directory / kUnetWeights) <
          0.6 * static_cast<double>(std::filesystem::file_size(rounded.directory / kUnetWeights)));
    const auto expected = forward(rounded.load());
    CHECK(!torch::equal(expected.predicted, unrounded.predicted));
    check_equal(forward(half.load()), expected);
    // The UNet in the type in which a job computes.
    const BaseModelOptions options{.unet_dtype = dtype};
    check_equal(forward(load_base_model(half.directory.path(), options)),
                forward(load_base_model(rounded.directory.path(), options)));
  }
}

TEST(fp16_files_are_found) {
  const ModelDirectory model;
  convert_weights(model, torch::kFloat16);
  const auto expected = forward(model.load());
  for (const std::string name : kAllWeights) {
    const auto stem = name.substr(0, name.rfind('.'));
    std::filesystem::rename(model.directory / name, model.directory / (stem + ".fp16.safetensors"));
  }
  check_equal(forward(model.load()), expected);
}

TEST(shards_are_read_as_one) {
  const ModelDirectory model;
  const auto expected = forward(model.load());
  const auto shard = [&](int index, int count) {
    return model.directory / ("unet/diffusion_pytorch_model-0000" + std::to_string(index) + "-of-0000" +
                              std::to_string(count) + ".safetensors");
  };
  std::map<std::string, torch::Tensor> halves[2];
  model.edit_weights(kUnetWeights, [&](auto& tensors) {
    size_t i = 0;
    for (const auto& [key, tensor] : tensors) halves[i++ % 2][key] = tensor.clone();
  });
  std::filesystem::remove(model.directory / kUnetWeights);
  write_safetensors(shard(1, 2), halves[0]);
  CHECK_ERROR(model.load(), ErrorCode::kModelLoadFailed, "nor all shards");
  write_safetensors(shard(2, 2), halves[1]);
  check_equal(forward(model.load()), expected);
}

TEST(old_vae_attention_names_are_read) {
  const ModelDirectory model;
  const auto pixels_in = pixels(0, 32, 32);
  const auto expected = model.load().vae.encode(pixels_in).mean;
  model.edit_weights("vae/diffusion_pytorch_model.safetensors", [](auto& tensors) {
    std::map<std::string, torch::Tensor> renamed;
    for (const auto& [new_key, tensor] : tensors) {
      auto key = new_key;
      for (const auto& [name, old_name] : {std::pair{".to_q.", ".query."}, std::pair{".to_k.", ".key."},
                                           std::pair{".to_v.", ".value."}, std::pair{".to_out.0.", ".proj_attn."}}) {
        const auto found = key.find(name);
        if (found != std::string::npos) key.replace(found, std::string(name).size(), old_name);
      }
      renamed[key] = tensor;
    }
    CHECK(renamed.count("encoder.mid_block.attentions.0.proj_attn.weight") == 1);
    tensors = renamed;
  });
  CHECK(torch::equal(model.load().vae.encode(pixels_in).mean, expected));
}

TEST(text_encoder_keys_without_their_first_level_are_read) {
  const ModelDirectory model;
  const auto expected = model.load().text_encoder.encode(token_tensor(1));
  model.edit_weights("text_encoder/model.safetensors", [](auto& tensors) {
    std::map<std::string, torch::Tensor> renamed;
    for (const auto& [key, tensor] : tensors) renamed[key.substr(std::string("text_model.").size())] = tensor;
    renamed["embeddings.position_ids"] = torch::arange(77).unsqueeze(0);
    tensors = renamed;
  });
  CHECK(torch::equal(model.load().text_encoder.encode(token_tensor(1)), expected));
}

TEST(missing_directory) {
  CHECK_ERROR(load_base_model("/nowhere", {}), kCode, "/nowhere/model_index.json: can't be read");
}

TEST(model_index_that_is_no_json) {
  const ModelDirectory model;
  write_file_atomically(model.directory / "model_index.json", "{");
  CHECK_ERROR(model.load(), kCode, "no JSON object");
}

TEST(pipeline_without_a_unet) {
  const ModelDirectory model;
  model.edit_json("model_index.json", [](Json& json) {
    json["_class_name"] = "FluxPipeline";
    json.erase("unet");
  });
  CHECK_ERROR(model.load(), kCode, "FluxPipeline without \"unet\"; use a Stable Diffusion 1.x model");
}

TEST(missing_weights) {
  const ModelDirectory model;
  std::filesystem::remove(model.directory / kUnetWeights);
  CHECK_ERROR(model.load(), kCode, "neither diffusion_pytorch_model.safetensors nor");
}

TEST(missing_weight) {
  const ModelDirectory model;
  model.edit_weights(kUnetWeights, [](auto& tensors) { tensors.erase("mid_block.resnets.1.conv2.bias"); });
  CHECK_ERROR(model.load(), kCode, "no weight \"mid_block.resnets.1.conv2.bias\"");
}

TEST(surplus_weight) {
  const ModelDirectory model;
  model.edit_weights(kUnetWeights, [](auto& tensors) { tensors["add_embedding.linear_1.weight"] = torch::ones({2}); });
  CHECK_ERROR(model.load(), kCode, "\"add_embedding.linear_1.weight\", which its config.json does not ask for");
}

TEST(ill_shaped_weight) {
  const ModelDirectory model;
  model.edit_weights(kUnetWeights, [](auto& tensors) { tensors["conv_in.bias"] = torch::ones({31}); });
  CHECK_ERROR(model.load(), kCode, "\"conv_in.bias\" with the shape [31], but its config.json asks for [32]");
}

TEST(integer_weight) {
  const ModelDirectory model;
  model.edit_weights(kUnetWeights, [](auto& tensors) { tensors["conv_in.bias"] = torch::ones({32}, torch::kInt64); });
  CHECK_ERROR(model.load(), kCode, "\"conv_in.bias\" as integers");
}

TEST(other_architectures_are_named) {
  const auto refuses = [](const std::string& file, const std::string& key, const Json& value, const std::string& part) {
    const ModelDirectory model;
    model.edit_json(file, [&](Json& json) { json[key] = value; });
    CHECK_ERROR(model.load(), kCode, part);
  };
  refuses("unet/config.json", "_class_name", "UNet3DConditionModel", "UNet3DConditionModel");
  refuses("unet/config.json", "addition_embed_type", "text_time", "text_time");
  refuses("unet/config.json", "down_block_types", {"CrossAttnDownBlock2D", "KDownBlock2D"}, "KDownBlock2D");
  refuses("unet/config.json", "up_block_types", {"AttnUpBlock2D", "CrossAttnUpBlock2D"}, "AttnUpBlock2D");
  refuses("unet/config.json", "block_out_channels", {32, 60}, "60 must be a multiple of norm_num_groups");
  refuses("unet/config.json", "block_out_channels", {32}, "differ in length");
  refuses("unet/config.json", "block_out_channels", "32", "must be a list");
  refuses("unet/config.json", "layers_per_block", 0, "positive");
  refuses("unet/config.json", "in_channels", 9, "holds \"conv_in.weight\"");
  refuses("unet/config.json", "act_fn", "gelu", "(only \"silu\" is); use a Stable Diffusion 1.x model");
  refuses("vae/config.json", "_class_name", "AutoencoderTiny", "AutoencoderTiny");
  refuses("vae/config.json", "act_fn", "relu", "(only \"silu\" is); use the VAE of a Stable Diffusion 1.x model");
  refuses("vae/config.json", "shift_factor", 0.1, "shift_factor");
  refuses("vae/config.json", "block_out_channels", {8, 16, 17}, "17 must be a multiple");
  refuses("text_encoder/config.json", "architectures", {"T5EncoderModel"}, "T5EncoderModel");
  refuses("text_encoder/config.json", "architectures", {"T5EncoderModel"}, "use a Stable Diffusion 1.x model");
  refuses("text_encoder/config.json", "hidden_act", "relu", "relu");
  refuses("text_encoder/config.json", "num_attention_heads", 5, "multiple of num_attention_heads");
  refuses("text_encoder/config.json", "hidden_size", "32", "must be an integer");
  refuses("scheduler/scheduler_config.json", "prediction_type", "sample", "prediction_type");
  refuses("scheduler/scheduler_config.json", "beta_schedule", "squaredcos_cap_v2", "squaredcos_cap_v2");
  refuses("scheduler/scheduler_config.json", "beta_end", 1.5, "beta_end");
}

TEST_MAIN()
