#include "core/model_io/lora_export.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <set>
#include <system_error>

#include "core/errors.h"
#include "core/model_io/json.h"
#include "core/model_io/safetensors.h"

namespace brushwork {

namespace {

using Tensors = std::map<std::string, torch::Tensor>;
using Metadata = std::map<std::string, std::string>;

void make_directory(const std::filesystem::path& directory) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) {
    throw Error(ErrorCode::kInternal, "Could not make the directory " + directory.string() + " for the weights: " +
                                          error.message() + ". Check the disk and its permissions.");
  }
}

// 32 rather than 32.0 where the number is whole, as Python's configurations have it.
Json number(double value) {
  if (value == std::floor(value) && std::abs(value) < 1e15) return static_cast<int64_t>(value);
  return value;
}

// A trained network: its part of the parameters, and how readers call it.
struct Network {
  int64_t first;  // of its modules
  int64_t end;    // one behind the last
  std::string diffusers_prefix;
  std::string kohya_prefix;
  std::string peft_folder;
  Json auto_mapping;  // PEFT's name of the model class
};

constexpr const char* kTextEncoderFolder = "peft_text_encoder";

std::vector<Network> networks_of(const LoraParameters& lora) {
  const auto& text_encoder = lora.layout().text_encoder;
  const int64_t count = lora.module_count();
  std::vector<Network> networks = {
      {0,
       text_encoder ? text_encoder->target : count,
       "unet.",
       "lora_unet_",
       "peft",
       {{"base_model_class", "UNet2DConditionModel"}, {"parent_library", "diffusers.models.unets.unet_2d_condition"}}}};
  if (text_encoder) {
    networks.push_back(
        {text_encoder->target,
         count,
         "text_encoder.",
         "lora_te_",
         kTextEncoderFolder,
         {{"base_model_class", "CLIPTextModel"}, {"parent_library", "transformers.models.clip.modeling_clip"}}});
  }
  return networks;
}

const std::string& name_of(const LoraParameters& lora, int64_t i) {
  return lora.targets()[static_cast<size_t>(i)].name;
}

// The last parts of the targets' names: "to_k", "to_out.0", "q_proj", …, which PEFT matches as suffixes.
std::vector<std::string> target_suffixes(const LoraParameters& lora, const Network& network) {
  std::set<std::string> suffixes;
  for (int64_t i = network.first; i < network.end; ++i) {
    // The projection's own name follows "attn1.", "attn2." or "self_attn.".
    const auto& name = name_of(lora, i);
    suffixes.insert(name.substr(name.find('.', name.rfind("attn")) + 1));
  }
  return {suffixes.begin(), suffixes.end()};
}

// The fields that every PEFT since 0.6 knows; one more and an older reader refuses the file.
// huggingface/peft v0.21.1, src/peft/tuners/lora/config.py, LoraConfig.
Json peft_config(const LoraParameters& lora, const Network& network, double alpha, const Json& base_model_name) {
  return {{"alpha_pattern", Json::object()},
          {"auto_mapping", nullptr},
          {"base_model_name_or_path", base_model_name},
          {"bias", "none"},
          {"fan_in_fan_out", false},
          {"inference_mode", true},
          {"init_lora_weights", true},
          {"layers_pattern", nullptr},
          {"layers_to_transform", nullptr},
          {"lora_alpha", number(alpha)},
          {"lora_dropout", lora.config().dropout},
          {"modules_to_save", nullptr},
          {"peft_type", "LORA"},
          {"r", lora.config().rank},
          {"rank_pattern", Json::object()},
          {"revision", nullptr},
          {"target_modules", target_suffixes(lora, network)},
          {"task_type", nullptr}};
}

// huggingface/diffusers v0.42.1, src/diffusers/loaders/lora_base.py, write_lora_layers. Readers that ignore the header
// take a scale of 1, so alpha / rank is folded into B and the header says the same (lora_alpha = r).
void write_diffusers(const LoraParameters& lora, const std::filesystem::path& file) {
  Tensors tensors;
  Json adapter = Json::object();
  for (const Network& network : networks_of(lora)) {
    const auto& prefix = network.diffusers_prefix;
    for (int64_t i = network.first; i < network.end; ++i) {
      const auto key = prefix + name_of(lora, i);
      tensors.emplace(key + ".lora_A.weight", lora.a(i));
      tensors.emplace(key + ".lora_B.weight", lora.b(i) * lora.config().scale());
    }
    const Json config = peft_config(lora, network, static_cast<double>(lora.config().rank), nullptr);
    for (const auto& [key, value] : config.items()) adapter[prefix + key] = value;
    // diffusers builds its layers from this header and leaves them in training mode: a dropout would go on when
    // drawing.
    adapter[prefix + "lora_dropout"] = 0.0;
  }
  write_safetensors(file.string(), tensors, {{"format", "pt"}, {"lora_adapter_metadata", adapter.dump(2)}});
}

// The paths by which PEFT may look for a module. transformers 5.6 took CLIP's level "text_model" away, and PEFT passes
// over keys that it can't place: under both names the weights are found with either (tried with 4.57.1 and 5.23.0).
std::vector<std::string> peft_paths(const std::string& name) {
  const std::string level = "text_model.";
  if (name.rfind(level, 0) != 0) return {name};
  return {name, name.substr(level.size())};
}

// huggingface/peft v0.21.1, src/peft/utils/save_and_load.py, get_peft_model_state_dict.
void write_peft(const LoraParameters& lora, const Network& network, const LoraExportOptions& options,
                const std::filesystem::path& directory) {
  Tensors tensors;
  for (int64_t i = network.first; i < network.end; ++i) {
    for (const auto& path : peft_paths(name_of(lora, i))) {
      tensors.emplace("base_model.model." + path + ".lora_A.weight", lora.a(i));
      tensors.emplace("base_model.model." + path + ".lora_B.weight", lora.b(i));
    }
  }
  auto config = peft_config(lora, network, lora.config().alpha, options.base_model_name);
  config["auto_mapping"] = network.auto_mapping;
  make_directory(directory);
  write_safetensors((directory / "adapter_model.safetensors").string(), tensors, {{"format", "pt"}});
  write_file_atomically((directory / "adapter_config.json").string(), config.dump(2) + "\n");
}

// kohya-ss/sd-scripts 48d368fa, library/train_util.py, BaseDataset.make_buckets; without the mean error of aspect
// ratios, since the pictures come in their final size.
Json kohya_buckets(const std::vector<PictureSize>& sizes) {
  Json buckets = Json::object();
  for (const auto& size : sizes) {
    buckets[std::to_string(buckets.size())] = {{"resolution", {size.width_px, size.height_px}},
                                               {"count", size.picture_count}};
  }
  return {{"buckets", buckets}};
}

// kohya-ss/sd-scripts 48d368fa, library/train_util.py SS_METADATA_MINIMUM_KEYS and library/sai_model_spec.py.
Metadata kohya_metadata(const LoraParameters& lora, const LoraExportOptions& options) {
  const bool is_v_prediction = options.prediction_type == PredictionType::kVPrediction;
  const auto side = std::to_string(options.resolution_px);
  Metadata metadata{{"format", "pt"},
                    {"ss_v2", "False"},
                    {"ss_base_model_version", "sd_v1"},
                    {"ss_network_module", "networks.lora"},
                    {"ss_network_dim", std::to_string(lora.config().rank)},
                    {"ss_network_alpha", Json(lora.config().alpha).dump()},
                    {"ss_network_args", "{}"},
                    {"modelspec.sai_model_spec", "1.0.1"},
                    {"modelspec.architecture", "stable-diffusion-v1/lora"},
                    {"modelspec.implementation", "diffusers"},
                    {"modelspec.title", "Brushwork style LoRA"},
                    {"modelspec.resolution", side + "x" + side},
                    {"modelspec.prediction_type", is_v_prediction ? "v" : "epsilon"}};
  if (options.sizes.size() > 1) {
    metadata.emplace("ss_enable_bucket", "True");
    metadata.emplace("ss_bucket_info", kohya_buckets(options.sizes).dump());
  }
  return metadata;
}

// kohya-ss/sd-scripts 48d368fa, networks/lora.py.
void write_kohya(const LoraParameters& lora, const LoraExportOptions& options, const std::filesystem::path& file) {
  Tensors tensors;
  const auto alpha = torch::full({}, lora.config().alpha, torch::kFloat32);
  for (const Network& network : networks_of(lora)) {
    for (int64_t i = network.first; i < network.end; ++i) {
      auto key = network.kohya_prefix + name_of(lora, i);
      std::replace(key.begin(), key.end(), '.', '_');
      tensors.emplace(key + ".lora_down.weight", lora.a(i));
      tensors.emplace(key + ".lora_up.weight", lora.b(i));
      tensors.emplace(key + ".alpha", alpha);
    }
  }
  write_safetensors(file.string(), tensors, kohya_metadata(lora, options));
}

}  // namespace

void export_lora(const LoraParameters& lora, const LoraExportOptions& options, const std::string& directory) {
  const torch::NoGradGuard no_grad;
  const std::filesystem::path root(directory);
  make_directory(root);
  write_diffusers(lora, root / "lora_weights.safetensors");
  // What an earlier export left here would pass for this one's.
  std::error_code ignored;
  std::filesystem::remove_all(root / kTextEncoderFolder, ignored);
  for (const Network& network : networks_of(lora)) write_peft(lora, network, options, root / network.peft_folder);
  write_kohya(lora, options, root / "kohya.safetensors");
}

}  // namespace brushwork
