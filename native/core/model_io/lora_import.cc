#include "core/model_io/lora_import.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <map>
#include <optional>
#include <sstream>
#include <utility>
#include <vector>

#include "core/errors.h"
#include "core/model_io/json.h"
#include "core/model_io/safetensors.h"

namespace brushwork {

namespace {

// What of a module's LoRA a tensor is.
enum class Part { kDown, kUp, kAlpha };

struct NamedPart {
  std::string_view suffix;
  Part part;
};

// PEFT and diffusers, diffusers before PEFT, kohya.
constexpr std::array<NamedPart, 7> kParts = {{{".lora_A.weight", Part::kDown},
                                              {".lora_B.weight", Part::kUp},
                                              {".lora.down.weight", Part::kDown},
                                              {".lora.up.weight", Part::kUp},
                                              {".lora_down.weight", Part::kDown},
                                              {".lora_up.weight", Part::kUp},
                                              {".alpha", Part::kAlpha}}};

// Something in a key that tells of a LoRA of another kind. The first that fits any key of the file is named.
struct OtherKind {
  std::string_view part_of_key;
  const char* reason;
};

constexpr const char* kSdxl = "it is for SDXL, and only LoRAs for Stable Diffusion 1.x can be used";
constexpr const char* kTextEncoder = "it changes the text encoder as well, and only LoRAs of the UNet can be used";
constexpr const char* kOtherLayers =
    "it changes other layers than the attention's to_q, to_k, to_v and to_out.0, which are all that can be used";

constexpr const char* kLoCon = "it is a LoCon: it changes convolutions";
constexpr const char* kDora = "it is a DoRA, not a plain LoRA";
constexpr const char* kOtherModel = "it is for a model of another architecture";

constexpr std::array<OtherKind, 25> kOtherKinds = {{{"lora_te1_", kSdxl},
                                                    {"lora_te2_", kSdxl},
                                                    {"text_encoder_2.", kSdxl},
                                                    {"lora_unet_input_blocks_", kSdxl},
                                                    {"lora_unet_output_blocks_", kSdxl},
                                                    {"hada_w1_", "it is a LoHa, not a plain LoRA"},
                                                    {"lokr_w", "it is a LoKr, not a plain LoRA"},
                                                    {"oft_", "it is an OFT, not a LoRA"},
                                                    {"dora_scale", kDora},
                                                    {"lora_magnitude_vector", kDora},
                                                    {"lora_mid.", kLoCon},
                                                    {"conv1.", kLoCon},
                                                    {"conv2.", kLoCon},
                                                    {"conv.", kLoCon},
                                                    {"conv_in.", kLoCon},
                                                    {"conv_out.", kLoCon},
                                                    {"transformer.", kOtherModel},
                                                    {"lora_transformer_", kOtherModel},
                                                    {"lora_te_", kTextEncoder},
                                                    {"text_encoder.", kTextEncoder},
                                                    {"text_model.", kTextEncoder},
                                                    {"proj_in", kOtherLayers},
                                                    {"proj_out", kOtherLayers},
                                                    {".ff.", kOtherLayers},
                                                    {"_ff_", kOtherLayers}}};

bool starts_with(std::string_view text, std::string_view start) { return text.substr(0, start.size()) == start; }

bool ends_with(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

std::string shape_text(torch::IntArrayRef shape) {
  std::ostringstream text;
  text << shape;
  return text.str();
}

// The tensors that a file holds for one module.
struct ModuleTensors {
  torch::Tensor down;   // (r, in)
  torch::Tensor up;     // (out, r)
  torch::Tensor alpha;  // one number, or undefined
};

class LoraReader {
 public:
  LoraReader(std::string path, const LoraLayout& layout) : path_(std::move(path)), layout_(layout) {
    for (size_t i = 0; i < layout.targets.size(); ++i) {
      std::string flat = layout.targets[i].name;
      dotted_.emplace(flat, i);
      std::replace(flat.begin(), flat.end(), '.', '_');
      flat_.emplace(flat, i);
    }
  }

  LoraParameters read(torch::Device device) {
    const std::filesystem::path path(path_);
    const bool is_peft = std::filesystem::is_directory(path);
    const auto weights = is_peft ? (path / "adapter_model.safetensors").string() : path_;
    const SafetensorsFile file(weights, ErrorCode::kInvalidRequest);
    refuse_other_kinds(file);
    const auto modules = sort_tensors(file);
    const double scale = is_peft ? scale_of(JsonFile((path / "adapter_config.json").string()).value(), "")
                                 : scale_of_header(file.metadata());
    return fill(modules, scale, device);
  }

 private:
  [[noreturn]] void fail(const std::string& why) const {
    throw Error(ErrorCode::kInvalidRequest, "The LoRA " + path_ + " can't be used: " + why + ".");
  }

  void refuse_other_kinds(const SafetensorsFile& file) const {
    if (file.entries().empty()) fail("the file holds nothing");
    for (const auto& kind : kOtherKinds) {
      for (const auto& [key, entry] : file.entries()) {
        if (key.find(kind.part_of_key) != std::string::npos) fail(std::string(kind.reason) + " (\"" + key + "\")");
      }
    }
  }

  // The index in the layout of the module that a key without its part names.
  size_t module_of(std::string_view name, const std::string& key) const {
    constexpr std::string_view kKohya = "lora_unet_";
    const bool is_kohya = starts_with(name, kKohya);
    if (is_kohya) name.remove_prefix(kKohya.size());
    for (const std::string_view prefix : {"base_model.model.", "unet."}) {
      if (starts_with(name, prefix)) name.remove_prefix(prefix.size());
    }
    const auto& known = is_kohya ? flat_ : dotted_;
    const auto found = known.find(std::string(name));
    if (found == known.end()) fail("the base model has no attention layer for its \"" + key + "\"");
    return found->second;
  }

  std::map<size_t, ModuleTensors> sort_tensors(const SafetensorsFile& file) const {
    std::map<size_t, ModuleTensors> modules;
    for (const auto& [key, entry] : file.entries()) {
      const auto named = std::find_if(kParts.begin(), kParts.end(),
                                      [&key = key](const NamedPart& part) { return ends_with(key, part.suffix); });
      if (named == kParts.end()) fail("it holds \"" + key + "\", which is no part of a LoRA");
      auto& module = modules[module_of(std::string_view(key).substr(0, key.size() - named->suffix.size()), key)];
      auto& place = named->part == Part::kDown ? module.down : named->part == Part::kUp ? module.up : module.alpha;
      place = file.tensor(key).to(torch::kFloat32);
    }
    for (const auto& [index, module] : modules) check_shapes(layout_.targets[index], module);
    return modules;
  }

  void check_shapes(const LoraTarget& target, const ModuleTensors& module) const {
    if (!module.down.defined() || !module.up.defined()) fail("\"" + target.name + "\" lacks half of its pair");
    const int64_t rank = module.down.dim() == 2 ? module.down.size(0) : 0;
    if (rank < 1 || module.down.sizes() != torch::IntArrayRef({rank, target.in_features}) ||
        module.up.sizes() != torch::IntArrayRef({target.out_features, rank})) {
      fail("\"" + target.name + "\" has the shapes " + shape_text(module.down.sizes()) + " and " +
           shape_text(module.up.sizes()) + ", but the layer turns " + std::to_string(target.in_features) +
           " numbers into " + std::to_string(target.out_features) + ": it was made for another base model");
    }
    if (module.alpha.defined() && module.alpha.numel() != 1) fail("the alpha of \"" + target.name + "\" is no number");
  }

  // alpha / rank of a PEFT configuration whose keys begin with `prefix`.
  double scale_of(const Json& config, const std::string& prefix) const {
    const auto value = [&](const char* key) { return config.value(prefix + key, Json()); };
    for (const char* key : {"alpha_pattern", "rank_pattern"}) {
      if (!value(key).empty()) fail(std::string("its configuration has a ") + key + ", which is not supported");
    }
    if (value("use_dora") == true) fail("it is a DoRA, not a plain LoRA");
    if (!value("lora_alpha").is_number() || !value("r").is_number_integer() || value("r").get<int64_t>() < 1) {
      fail("its configuration lacks the numbers " + prefix + "lora_alpha and " + prefix + "r");
    }
    const auto rank = value("r").get<double>();
    return value("lora_alpha").get<double>() / (value("use_rslora") == true ? std::sqrt(rank) : rank);
  }

  // The same of a file's header: what diffusers writes, and 1 where there is nothing.
  double scale_of_header(const std::map<std::string, std::string>& metadata) const {
    const auto found = metadata.find("lora_adapter_metadata");
    if (found == metadata.end()) return 1;
    const auto header = Json::parse(found->second, nullptr, /*allow_exceptions=*/false);
    if (!header.is_object()) fail("its lora_adapter_metadata is not JSON");
    return scale_of(header, "unet.");
  }

  LoraParameters fill(const std::map<size_t, ModuleTensors>& modules, double scale, torch::Device device) const {
    const torch::NoGradGuard no_grad;
    int64_t rank = 1;
    for (const auto& [index, module] : modules) rank = std::max(rank, module.down.size(0));
    LoraParameters lora(layout_, {rank, static_cast<double>(rank), 0.0}, device);
    for (const auto& [index, module] : modules) {
      const int64_t own_rank = module.down.size(0);
      const double own_scale =
          module.alpha.defined() ? module.alpha.item<double>() / static_cast<double>(own_rank) : scale;
      lora.a(static_cast<int64_t>(index)).narrow(0, 0, own_rank).copy_(module.down);
      lora.b(static_cast<int64_t>(index)).narrow(1, 0, own_rank).copy_(module.up * own_scale);
    }
    if (!torch::isfinite(lora.values().detach()).all().item<bool>()) fail("it holds numbers that are not finite");
    return lora;
  }

  std::string path_;
  const LoraLayout& layout_;
  std::map<std::string, size_t> dotted_;
  std::map<std::string, size_t> flat_;
};

}  // namespace

LoraParameters load_lora(const std::string& path, const LoraLayout& layout, torch::Device device) {
  return LoraReader(path, layout).read(device);
}

}  // namespace brushwork
