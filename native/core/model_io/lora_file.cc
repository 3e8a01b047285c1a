#include "core/model_io/lora_file.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <filesystem>
#include <functional>
#include <optional>
#include <sstream>
#include <utility>

#include "core/errors.h"
#include "core/model_io/json.h"
#include "core/model_io/safetensors.h"

namespace brushwork {

namespace {

// What of a module's LoRA a tensor is.
struct NamedPart {
  std::string_view suffix;
  torch::Tensor LoraModule::* part;
};

// PEFT and diffusers, diffusers before PEFT, kohya.
constexpr std::array<NamedPart, 8> kParts = {{{".lora_A.weight", &LoraModule::down},
                                              {".lora_B.weight", &LoraModule::up},
                                              {".lora.down.weight", &LoraModule::down},
                                              {".lora.up.weight", &LoraModule::up},
                                              {".lora_down.weight", &LoraModule::down},
                                              {".lora_up.weight", &LoraModule::up},
                                              {".lora_mid.weight", &LoraModule::mid},
                                              {".alpha", &LoraModule::alpha}}};

// Something in a key that tells of a LoRA of another kind. The first that fits any key of the file is named.
struct OtherKind {
  std::string_view part_of_key;
  const char* reason;
};

constexpr const char* kSdxl = "it is for SDXL, and only LoRAs for Stable Diffusion 1.x can be used";
constexpr const char* kDora = "it is a DoRA, not a plain LoRA";
constexpr const char* kOtherModel = "it is for a model of another architecture";

constexpr std::array<OtherKind, 16> kOtherKinds = {{{"lora_te1_", kSdxl},
                                                    {"lora_te2_", kSdxl},
                                                    {"text_encoder_2.", kSdxl},
                                                    {"lora_unet_input_blocks_", kSdxl},
                                                    {"lora_unet_output_blocks_", kSdxl},
                                                    {"hada_w1_", "it is a LoHa, not a plain LoRA"},
                                                    {"lokr_w", "it is a LoKr, not a plain LoRA"},
                                                    {"oft_", "it is an OFT, not a LoRA"},
                                                    {"dora_scale", kDora},
                                                    {"lora_magnitude_vector", kDora},
                                                    {".on_input", "it is an IA3, not a LoRA"},
                                                    {".a1.weight", "it is a GLoRA, not a plain LoRA"},
                                                    {".diff", "it holds whole differences of weights, not a LoRA"},
                                                    {".w_norm", "it changes norms, and only plain LoRAs can be used"},
                                                    {"transformer.", kOtherModel},
                                                    {"lora_transformer_", kOtherModel}}};

bool starts_with(std::string_view text, std::string_view start) { return text.substr(0, start.size()) == start; }

bool ends_with(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

// A module's path, network in front, with the text encoder's level "text_model", which transformers 5.6 took away.
std::string with_text_level(const std::string& path) {
  const std::string text_encoder = "text_encoder.", level = "text_model.";
  if (!starts_with(path, text_encoder) || starts_with(path, text_encoder + level)) return path;
  return text_encoder + level + path.substr(text_encoder.size());
}

// A shape without the ones at its end: a kernel of 1 x 1 is none.
torch::IntArrayRef without_ones(torch::IntArrayRef shape) {
  while (shape.size() > 2 && shape.back() == 1) shape = shape.slice(0, shape.size() - 1);
  return shape;
}

std::string shape_text(torch::IntArrayRef shape) {
  std::ostringstream text;
  text << shape;
  return text.str();
}

// Fills the modules of a `LoraFile` from one file after the other.
class Reader {
 public:
  Reader(const LoraFile& owner, std::map<std::string, LoraModule>& modules) : owner_(owner), modules_(modules) {}

  void read_file(const std::string& path) {
    const SafetensorsFile file(path, ErrorCode::kInvalidRequest);
    Json header = Json::object();
    const auto found = file.metadata().find("lora_adapter_metadata");
    if (found != file.metadata().end()) {
      header = Json::parse(found->second, nullptr, /*allow_exceptions=*/false);
      if (!header.is_object()) owner_.fail("its lora_adapter_metadata is not JSON");
    }
    add(file, [&](const std::string& network) {
      return found == file.metadata().end() ? Scale{} : scale_of(header, network);
    });
  }

  void read_peft(const std::filesystem::path& folder) {
    const SafetensorsFile file((folder / "adapter_model.safetensors").string(), ErrorCode::kInvalidRequest);
    const JsonFile config((folder / "adapter_config.json").string());
    add(file, [&](const std::string&) { return scale_of(config.value(), ""); });
  }

 private:
  // What a configuration says of the alpha of modules that have none of their own.
  struct Scale {
    std::optional<double> alpha;  // none: the rank
    std::map<std::string, double> alpha_of;
    bool is_rank_stabilised = false;

    // Of a module with that path in its network.
    double of(const std::string& path, int64_t rank) const {
      const auto r = static_cast<double>(rank);
      auto value = alpha.value_or(r);
      size_t longest = 0;
      for (const auto& [end, own] : alpha_of) {
        if (end.size() <= longest || !ends_with(path, "." + end)) continue;
        longest = end.size();
        value = own;
      }
      return value / (is_rank_stabilised ? std::sqrt(r) : r);
    }
  };

  // Takes a file's tensors. `scale_of_network`: by the network's prefix in diffusers' headers; asked only for networks
  // that the file holds.
  void add(const SafetensorsFile& file, const std::function<Scale(const std::string&)>& scale_of_network) {
    refuse_other_kinds(file);
    std::map<std::string, std::string> paths;  // of the new modules, by their names
    for (const auto& [key, entry] : file.entries()) {
      const auto named = std::find_if(kParts.begin(), kParts.end(),
                                      [&key = key](const NamedPart& part) { return ends_with(key, part.suffix); });
      if (named == kParts.end()) owner_.fail("it holds \"" + key + "\", which is no part of a LoRA");
      const auto path = path_of(key.substr(0, key.size() - named->suffix.size()));
      const auto name = lora_module_name(path);
      paths.emplace(name, path);
      LoraModule& module = modules_[name];
      module.key = key;
      torch::Tensor& place = module.*(named->part);
      const auto found = file.tensor(key).to(torch::kFloat32, /*non_blocking=*/false, /*copy=*/true);
      // Files of ours hold the text encoder by two names, for two generations of transformers.
      if (place.defined() && !torch::equal(place, found)) owner_.fail("it contradicts itself in \"" + key + "\"");
      place = found;
    }
    std::map<std::string, Scale> scales;
    for (const auto& [name, path] : paths) {
      LoraModule& module = modules_.at(name);
      check(module);
      const std::string network = starts_with(name, "lora_te_") ? "text_encoder." : "unet.";
      if (scales.count(network) == 0) scales[network] = scale_of_network(network);
      module.scale = module.alpha.defined() ? module.alpha.item<double>() / static_cast<double>(module.rank())
                                            : scales[network].of(path, module.rank());
      if (!std::isfinite(module.scale)) owner_.fail("it holds numbers that are not finite (\"" + module.key + "\")");
    }
  }

  void refuse_other_kinds(const SafetensorsFile& file) const {
    if (file.entries().empty()) owner_.fail("the file holds nothing");
    // Every other kind of adapter names itself in its keys as well.
    constexpr std::string_view kAdapters[] = {"lora", "hada", "lokr", "oft"};
    const bool is_adapter = std::any_of(file.entries().begin(), file.entries().end(), [&](const auto& entry) {
      return std::any_of(std::begin(kAdapters), std::end(kAdapters),
                         [&](std::string_view name) { return entry.first.find(name) != std::string::npos; });
    });
    if (!is_adapter) {
      owner_.fail("it holds no LoRA but other weights, as of a model (\"" + file.entries().begin()->first + "\")");
    }
    for (const auto& kind : kOtherKinds) {
      for (const auto& [key, entry] : file.entries()) {
        if (key.find(kind.part_of_key) != std::string::npos) {
          owner_.fail(std::string(kind.reason) + " (\"" + key + "\")");
        }
      }
    }
  }

  // The path of a module with its network in front, or kohya's name for it, from a key without its part.
  static std::string path_of(std::string name) {
    if (starts_with(name, "lora_")) return name;
    const std::string peft = "base_model.model.";
    if (starts_with(name, peft)) name = name.substr(peft.size());
    if (starts_with(name, "unet.") || starts_with(name, "text_encoder.")) return with_text_level(name);
    const bool is_text = starts_with(name, "text_model.") || starts_with(name, "encoder.layers.");
    return with_text_level((is_text ? "text_encoder." : "unet.") + name);
  }

  // Throws where the tensors of a module don't make a LoRA, of whatever layer.
  void check(const LoraModule& module) const {
    if (!module.down.defined() || !module.up.defined()) owner_.fail("\"" + module.key + "\" lacks half of its pair");
    const bool is_lora = module.down.dim() >= 2 && module.up.dim() >= 2 && module.rank() >= 1 &&
                         without_ones(module.up.sizes()).size() == 2 && module.up.size(1) == module.rank();
    const bool is_tucker =
        !module.mid.defined() || (module.mid.dim() == 4 && module.mid.size(0) == module.rank() &&
                                  module.mid.size(1) == module.rank() && without_ones(module.down.sizes()).size() == 2);
    if (!is_lora || !is_tucker) {
      owner_.fail("the shapes of \"" + module.key + "\" do not fit each other: " + shape_text(module.down.sizes()) +
                  " and " + shape_text(module.up.sizes()));
    }
    if (module.alpha.defined() && module.alpha.numel() != 1) {
      owner_.fail("the alpha of \"" + module.key + "\" is no number");
    }
    for (const auto& part : {module.down, module.mid, module.up}) {
      if (part.defined() && !torch::isfinite(part).all().item<bool>()) {
        owner_.fail("it holds numbers that are not finite (\"" + module.key + "\")");
      }
    }
  }

  // What a PEFT configuration whose keys begin with `prefix` says.
  Scale scale_of(const Json& config, const std::string& prefix) const {
    const auto value = [&](const char* key) { return config.value(prefix + key, Json()); };
    if (value("use_dora") == true) owner_.fail(kDora);
    if (!value("lora_alpha").is_number() || !value("r").is_number_integer() || value("r").get<int64_t>() < 1) {
      owner_.fail("its configuration lacks the numbers " + prefix + "lora_alpha and " + prefix + "r");
    }
    Scale scale{value("lora_alpha").get<double>(), {}, value("use_rslora") == true};
    // PEFT takes its names as regular expressions, but they are written as names, or as the ends of names.
    const Json alphas = value("alpha_pattern");
    for (const auto& [end, alpha] : alphas.items()) {
      const bool is_name = std::all_of(end.begin(), end.end(), [](unsigned char letter) {
        return std::isalnum(letter) != 0 || letter == '.' || letter == '_';
      });
      if (!is_name || !alpha.is_number()) {
        owner_.fail("its configuration has the alpha_pattern \"" + end + "\", which is no name of a layer");
      }
      scale.alpha_of[end] = alpha.get<double>();
    }
    return scale;
  }

  const LoraFile& owner_;
  std::map<std::string, LoraModule>& modules_;
};

}  // namespace

bool LoraModule::fits(torch::IntArrayRef shape) const {
  if (shape.size() < 2 || up.size(0) != shape[0]) return false;
  std::vector<int64_t> own = down.sizes().vec();
  if (mid.defined()) own = {rank(), down.size(1), mid.size(2), mid.size(3)};
  own[0] = shape[0];
  return without_ones(own) == without_ones(shape);
}

// kohya-ss/sd-scripts 6a584cad, networks/lora.py, LoRAInfModule.merge_to; with `mid` what the three convolutions of
// KohakuBlueleaf/LyCORIS 1d3a9a28, lycoris/modules/locon.py, LoConModule.forward, come to.
torch::Tensor LoraModule::change(torch::IntArrayRef shape) const {
  const auto first = down.flatten(1), second = up.flatten(1);
  if (!mid.defined()) return torch::matmul(second, first).mul_(scale).view(shape);
  return torch::einsum("op,pqkl,qi->oikl", {second, mid, first}).mul_(scale).view(shape);
}

std::string lora_module_name(const std::string& path) {
  const std::string unet = "unet.", text_encoder = "text_encoder.";
  std::string name = with_text_level(path);
  if (starts_with(name, unet)) {
    name = "lora_unet_" + name.substr(unet.size());
  } else if (starts_with(name, text_encoder)) {
    name = "lora_te_" + name.substr(text_encoder.size());
  }
  std::replace(name.begin(), name.end(), '.', '_');
  return name;
}

LoraFile::LoraFile(std::string path) : path_(std::move(path)) {
  Reader reader(*this, modules_);
  const auto place = std::filesystem::path(path_).lexically_normal();
  if (!std::filesystem::is_directory(place)) {
    reader.read_file(path_);
    return;
  }
  const auto folder = place.has_filename() ? place : place.parent_path();
  reader.read_peft(folder);
  const auto text_encoder = folder.parent_path() / "peft_text_encoder";
  if (folder.filename() == "peft" && std::filesystem::is_directory(text_encoder)) reader.read_peft(text_encoder);
}

void LoraFile::fail(const std::string& why) const {
  throw Error(ErrorCode::kInvalidRequest, "The LoRA " + path_ + " can't be used: " + why + ".");
}

}  // namespace brushwork
