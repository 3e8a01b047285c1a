// Defines: load_lora (a LoRA file of any of the three formats that `lora_export.h` writes, as parameters).
#pragma once

#include <string>

#include "core/lora/lora_parameters.h"
#include "core/model_io/base_model.h"

namespace brushwork {

// Reads the LoRA at `path`, a .safetensors file with diffusers, PEFT or kohya keys or a PEFT directory
// (adapter_config.json and adapter_model.safetensors), as parameters for `model`, on its device. A directory `peft`
// with `peft_text_encoder` beside it, as `export_lora` writes them, is read together with that.
//
// The result has the UNet's layout, joined with the text encoder's where the file holds some of that. It has the file's
// rank (the largest, where modules differ; the others are padded with zeros) and a scale of 1: each module's alpha /
// rank is folded into B. Modules that the file does not hold are zero. Where the alpha comes from: a tensor of the
// module, else the PEFT configuration or diffusers' header, else alpha = rank.
//
// Throws INVALID_REQUEST naming the file and why it can't be used: no file, no LoRA of this kind (LoCon, LoHa, LoKr,
// DoRA, SDXL, other layers than the attention's), layers that the model does not have, other shapes, half a pair.
LoraParameters load_lora(const std::string& path, const BaseModel& model);

}  // namespace brushwork
