// Defines: load_lora (a LoRA file of any of the three formats that `lora_export.h` writes, as parameters).
#pragma once

#include <string>

#include "core/lora/lora_parameters.h"
#include "core/torch.h"

namespace brushwork {

// Reads the LoRA at `path`, a .safetensors file with diffusers, PEFT or kohya keys or a PEFT directory
// (adapter_config.json and adapter_model.safetensors), as parameters for `layout` on `device`.
//
// The result has the file's rank (the largest, where modules differ; the others are padded with zeros) and a scale of
// 1: each module's alpha / rank is folded into B. Modules that the file does not hold are zero. Where the alpha comes
// from: a tensor of the module, else the PEFT configuration or diffusers' header, else alpha = rank.
//
// Throws INVALID_REQUEST naming the file and why it can't be used: no file, no LoRA of this kind (LoCon, LoHa, LoKr,
// DoRA, SDXL, a text encoder's, other layers than the attention's), layers that the model does not have, other shapes,
// half a pair.
LoraParameters load_lora(const std::string& path, const LoraLayout& layout, torch::Device device);

}  // namespace brushwork
