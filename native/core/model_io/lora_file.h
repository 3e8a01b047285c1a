// Defines: LoraFile, LoraModule, lora_module_name (what a LoRA file changes, whatever its format).
#pragma once

#include <map>
#include <string>

#include "core/torch.h"

namespace brushwork {

// The change of one layer: W + scale * up (mid) down. A convolution's down has the layer's kernel and up one of 1 x 1;
// where there is a `mid` (LyCORIS' Tucker decomposition), that has the kernel and the others have 1 x 1. Float32.
struct LoraModule {
  std::string key;      // one of its names in the file, for messages
  torch::Tensor down;   // (r, in) or (r, in, k, k)
  torch::Tensor mid;    // undefined, or (r, r, k, k)
  torch::Tensor up;     // (out, r) or (out, r, 1, 1)
  torch::Tensor alpha;  // one number, or undefined; in `scale` already
  double scale = 1;     // alpha / r, as the file's format says

  int64_t rank() const { return down.size(0); }
  // Whether `change` can be asked for a weight of `shape`, (out, in) or (out, in, k, k).
  bool fits(torch::IntArrayRef shape) const;
  // What is added to the weight, of that `shape`.
  torch::Tensor change(torch::IntArrayRef shape) const;
};

// The name by which `LoraFile` knows a module: kohya's, e.g. "lora_unet_mid_block_attentions_0_proj_in". `path` is that
// of the module in a diffusers model, with its network in front, e.g. "unet.mid_block.attentions.0.proj_in".
std::string lora_module_name(const std::string& path);

class LoraFile {
 public:
  // Reads the LoRA at `path`, a .safetensors file with diffusers, PEFT or kohya keys or a PEFT directory
  // (adapter_config.json and adapter_model.safetensors). A directory `peft` with `peft_text_encoder` beside it, as
  // `export_lora` writes them, is read together with that.
  //
  // Where the alpha comes from: a tensor of the module, else the PEFT configuration or diffusers' header, else alpha =
  // rank.
  //
  // Throws INVALID_REQUEST naming the file and why it can't be used: no file, no plain LoRA (LoHa, LoKr, DoRA, OFT, …),
  // one for another architecture, half a pair, shapes that don't fit each other, numbers that are not finite.
  explicit LoraFile(std::string path);

  // By `lora_module_name`.
  const std::map<std::string, LoraModule>& modules() const { return modules_; }
  // Throws INVALID_REQUEST that names the file and says `why` it can't be used.
  [[noreturn]] void fail(const std::string& why) const;

 private:
  std::string path_;
  std::map<std::string, LoraModule> modules_;
};

}  // namespace brushwork
