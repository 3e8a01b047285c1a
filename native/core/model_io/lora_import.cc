#include "core/model_io/lora_import.h"

#include <algorithm>
#include <map>
#include <set>
#include <sstream>
#include <utility>

#include "core/errors.h"
#include "core/model_io/lora_file.h"

namespace brushwork {

namespace {

std::string shape_text(torch::IntArrayRef shape) {
  std::ostringstream text;
  text << shape;
  return text.str();
}

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// Whether the module with that path is one of those that `UNet::lora_layout` and `ClipText::lora_layout` name.
bool is_trainable(const std::string& path) {
  constexpr const char* kNames[] = {".to_q",   ".to_k",   ".to_v",   ".to_out.0",
                                    ".q_proj", ".k_proj", ".v_proj", ".out_proj"};
  return std::any_of(std::begin(kNames), std::end(kNames), [&](const char* name) { return ends_with(path, name); });
}

// Brings the modules of a file to where they count, each once.
class LoraImport {
 public:
  explicit LoraImport(const std::string& path) : file_(path) {}

  // The weight with that key, with the file's change where it has one that can't become a parameter.
  torch::Tensor merged(const std::string& key, const torch::Tensor& weight) {
    const std::string end = ".weight";
    if (!ends_with(key, end)) return weight;
    const auto path = key.substr(0, key.size() - end.size());
    if (is_trainable(path)) return weight;
    const LoraModule* module = use(lora_module_name(path), weight.sizes());
    return module == nullptr ? weight : weight.to(torch::kFloat32) + module->change(weight.sizes());
  }

  // The rest of the modules as parameters for `model`.
  LoraParameters parameters(const BaseModel& model) {
    const torch::NoGradGuard no_grad;
    const auto layout = join_layouts(model.unet.lora_layout(), model.text_encoder.lora_layout());
    std::map<int64_t, const LoraModule*> modules;
    int64_t rank = 1;
    for (size_t i = 0; i < layout.targets.size(); ++i) {
      const LoraTarget& target = layout.targets[i];
      const std::string network = static_cast<int64_t>(i) < layout.text_encoder->target ? "unet." : "text_encoder.";
      const auto* module = use(lora_module_name(network + target.name), {target.out_features, target.in_features});
      if (module == nullptr) continue;
      modules.emplace(static_cast<int64_t>(i), module);
      rank = std::max(rank, module->rank());
    }
    const bool has_text = !modules.empty() && modules.rbegin()->first >= layout.text_encoder->target;
    LoraParameters lora(has_text ? layout : model.unet.lora_layout(), {rank, static_cast<double>(rank), 0.0},
                        model.unet.device());
    for (const auto& [i, module] : modules) {
      lora.a(i).narrow(0, 0, module->rank()).copy_(module->down.flatten(1));
      lora.b(i).narrow(1, 0, module->rank()).copy_(module->up.flatten(1) * module->scale);
    }
    return lora;
  }

  // Throws where the model had no layer for a module.
  void check_all_used() const {
    for (const auto& [name, module] : file_.modules()) {
      if (used_.count(name) == 0) file_.fail("the base model has no layer for its \"" + module.key + "\"");
    }
  }

 private:
  // The module of that name for a layer whose weight has `shape`, or null.
  const LoraModule* use(const std::string& name, torch::IntArrayRef shape) {
    const auto found = file_.modules().find(name);
    if (found == file_.modules().end()) return nullptr;
    const LoraModule& module = found->second;
    if (!module.fits(shape)) {
      file_.fail("\"" + module.key + "\" belongs to " + shape_text(module.down.sizes()) + " and " +
                 shape_text(module.up.sizes()) + ", but the layer's weight is " + shape_text(shape) +
                 ": it was made for another base model");
    }
    used_.insert(name);
    return &module;
  }

  LoraFile file_;
  std::set<std::string> used_;
};

}  // namespace

ModelWithLora load_base_model_with_lora(const std::string& directory, const BaseModelOptions& options,
                                        const std::string& lora_path) {
  LoraImport import(lora_path);
  auto model = load_base_model(directory, options, [&](const std::string& key, const torch::Tensor& weight) {
    return import.merged(key, weight);
  });
  auto lora = import.parameters(model);
  import.check_all_used();
  return {std::move(model), std::move(lora)};
}

}  // namespace brushwork
