#include "core/model_io/lora_import.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <functional>
#include <map>
#include <sstream>
#include <utility>
#include <vector>

#include "core/errors.h"
#include "core/lora/lora_layout.h"
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
constexpr const char* kOtherLayers = "it changes other layers than the attention's, which are all that can be used";

constexpr const char* kLoCon = "it is a LoCon: it changes convolutions";
constexpr const char* kDora = "it is a DoRA, not a plain LoRA";
constexpr const char* kOtherModel = "it is for a model of another architecture";

constexpr std::array<OtherKind, 24> kOtherKinds = {{{"lora_te1_", kSdxl},
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
                                                    {"proj_in", kOtherLayers},
                                                    {"proj_out", kOtherLayers},
                                                    {".ff.", kOtherLayers},
                                                    {"_ff_", kOtherLayers},
                                                    {"mlp.fc", kOtherLayers},
                                                    {"mlp_fc", kOtherLayers}}};

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
  torch::Tensor alpha;  // one number, or undefined: `scale` counts
  double scale = 1;
};

class LoraReader {
 public:
  LoraReader(std::string path, const BaseModel& model)
      : path_(std::move(path)),
        model_(model),
        layout_(join_layouts(model.unet.lora_layout(), model.text_encoder.lora_layout())) {
    // transformers 5.6 took this level of the text encoder's names away.
    const std::string level = "text_model.";
    for (size_t i = 0; i < layout_.targets.size(); ++i) {
      const std::string& name = layout_.targets[i].name;
      dotted_.emplace(name, i);
      if (starts_with(name, level)) dotted_.emplace(name.substr(level.size()), i);
      auto flat = (is_of_text_encoder(i) ? "lora_te_" : "lora_unet_") + name;
      std::replace(flat.begin(), flat.end(), '.', '_');
      flat_.emplace(flat, i);
    }
  }

  LoraParameters read() {
    const auto path = std::filesystem::path(path_).lexically_normal();
    if (!std::filesystem::is_directory(path)) {
      const SafetensorsFile file(path_, ErrorCode::kInvalidRequest);
      add(file, [&](const std::string& network) { return scale_of_header(file.metadata(), network); });
      return fill();
    }
    const auto folder = path.has_filename() ? path : path.parent_path();
    add_peft(folder);
    const auto text_encoder = folder.parent_path() / "peft_text_encoder";
    if (folder.filename() == "peft" && std::filesystem::is_directory(text_encoder)) add_peft(text_encoder);
    return fill();
  }

 private:
  [[noreturn]] void fail(const std::string& why) const {
    throw Error(ErrorCode::kInvalidRequest, "The LoRA " + path_ + " can't be used: " + why + ".");
  }

  bool is_of_text_encoder(size_t index) const { return index >= static_cast<size_t>(layout_.text_encoder->target); }

  void add_peft(const std::filesystem::path& folder) {
    const SafetensorsFile file((folder / "adapter_model.safetensors").string(), ErrorCode::kInvalidRequest);
    const JsonFile config((folder / "adapter_config.json").string());
    add(file, [&](const std::string&) { return scale_of(config.value(), ""); });
  }

  // Takes a file's tensors. `scale_of_network`: alpha / rank of modules without an alpha of their own, by the network's
  // prefix in diffusers' headers; asked only for networks that the file holds.
  void add(const SafetensorsFile& file, const std::function<double(const std::string&)>& scale_of_network) {
    refuse_other_kinds(file);
    std::map<size_t, ModuleTensors> modules;
    for (const auto& [key, entry] : file.entries()) {
      const auto named = std::find_if(kParts.begin(), kParts.end(),
                                      [&key = key](const NamedPart& part) { return ends_with(key, part.suffix); });
      if (named == kParts.end()) fail("it holds \"" + key + "\", which is no part of a LoRA");
      auto& module = modules[module_of(std::string_view(key).substr(0, key.size() - named->suffix.size()), key)];
      auto& place = named->part == Part::kDown ? module.down : named->part == Part::kUp ? module.up : module.alpha;
      place = file.tensor(key).to(torch::kFloat32);
    }
    std::map<bool, double> scales;
    for (auto& [index, module] : modules) {
      check_shapes(layout_.targets[index], module);
      const bool is_text = is_of_text_encoder(index);
      if (scales.count(is_text) == 0) scales[is_text] = scale_of_network(is_text ? "text_encoder." : "unet.");
      module.scale = scales[is_text];
    }
    modules_.merge(modules);
  }

  void refuse_other_kinds(const SafetensorsFile& file) const {
    if (file.entries().empty()) fail("the file holds nothing");
    // Every other kind of adapter names itself in its keys as well.
    constexpr std::string_view kAdapters[] = {"lora", "hada", "lokr", "oft"};
    const bool is_adapter = std::any_of(file.entries().begin(), file.entries().end(), [&](const auto& entry) {
      return std::any_of(std::begin(kAdapters), std::end(kAdapters),
                         [&](std::string_view name) { return entry.first.find(name) != std::string::npos; });
    });
    if (!is_adapter)
      fail("it holds no LoRA but other weights, as of a model (\"" + file.entries().begin()->first + "\")");
    for (const auto& kind : kOtherKinds) {
      for (const auto& [key, entry] : file.entries()) {
        if (key.find(kind.part_of_key) != std::string::npos) fail(std::string(kind.reason) + " (\"" + key + "\")");
      }
    }
  }

  // The index in the layout of the module that a key without its part names.
  size_t module_of(std::string_view name, const std::string& key) const {
    const bool is_kohya = starts_with(name, "lora_");
    for (const std::string_view prefix : {"base_model.model.", "unet.", "text_encoder."}) {
      if (starts_with(name, prefix)) name.remove_prefix(prefix.size());
    }
    const auto& known = is_kohya ? flat_ : dotted_;
    const auto found = known.find(std::string(name));
    if (found == known.end()) fail("the base model has no attention layer for its \"" + key + "\"");
    return found->second;
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
    if (value("use_dora") == true) fail(kDora);
    if (!value("lora_alpha").is_number() || !value("r").is_number_integer() || value("r").get<int64_t>() < 1) {
      fail("its configuration lacks the numbers " + prefix + "lora_alpha and " + prefix + "r");
    }
    const auto rank = value("r").get<double>();
    return value("lora_alpha").get<double>() / (value("use_rslora") == true ? std::sqrt(rank) : rank);
  }

  // The same of a file's header: what diffusers writes, and 1 where there is nothing.
  double scale_of_header(const std::map<std::string, std::string>& metadata, const std::string& prefix) const {
    const auto found = metadata.find("lora_adapter_metadata");
    if (found == metadata.end()) return 1;
    const auto header = Json::parse(found->second, nullptr, /*allow_exceptions=*/false);
    if (!header.is_object()) fail("its lora_adapter_metadata is not JSON");
    return scale_of(header, prefix);
  }

  LoraParameters fill() const {
    const torch::NoGradGuard no_grad;
    int64_t rank = 1;
    for (const auto& [index, module] : modules_) rank = std::max(rank, module.down.size(0));
    const bool has_text = !modules_.empty() && is_of_text_encoder(modules_.rbegin()->first);
    LoraParameters lora(has_text ? layout_ : model_.unet.lora_layout(), {rank, static_cast<double>(rank), 0.0},
                        model_.unet.device());
    for (const auto& [index, module] : modules_) {
      const int64_t own_rank = module.down.size(0);
      const double scale =
          module.alpha.defined() ? module.alpha.item<double>() / static_cast<double>(own_rank) : module.scale;
      lora.a(static_cast<int64_t>(index)).narrow(0, 0, own_rank).copy_(module.down);
      lora.b(static_cast<int64_t>(index)).narrow(1, 0, own_rank).copy_(module.up * scale);
    }
    if (!torch::isfinite(lora.values().detach()).all().item<bool>()) fail("it holds numbers that are not finite");
    return lora;
  }

  std::string path_;
  const BaseModel& model_;
  LoraLayout layout_;  // of both networks
  std::map<std::string, size_t> dotted_;
  std::map<std::string, size_t> flat_;
  std::map<size_t, ModuleTensors> modules_;
};

}  // namespace

LoraParameters load_lora(const std::string& path, const BaseModel& model) { return LoraReader(path, model).read(); }

}  // namespace brushwork
