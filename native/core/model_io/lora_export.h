// Defines: PictureSize, LoraExportOptions, export_lora (one trained LoRA in the three formats that readers expect).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/lora/lora_parameters.h"
#include "core/model_io/base_model.h"

namespace brushwork {

// How many of the pictures of an epoch have which size.
struct PictureSize {
  int64_t width_px;
  int64_t height_px;
  int64_t picture_count;
};

// What goes into the headers besides the LoRA itself; nothing of the customer's.
struct LoraExportOptions {
  std::string base_model_name;  // `base_model_name_or_path` of the PEFT configuration
  int64_t resolution_px;        // side of a square training picture
  PredictionType prediction_type;
  std::vector<PictureSize> sizes;  // named where there are several
};

// Writes below `directory` (made where missing), each file atomically and float32:
//
//   lora_weights.safetensors          diffusers keys; alpha / rank folded into B, header with lora_alpha = r
//   peft/adapter_config.json          alpha here
//   peft/adapter_model.safetensors    PEFT keys, raw B
//   peft_text_encoder/                the same two files for the text encoder, only where it is trained
//   kohya.safetensors                 kohya keys, raw B, alpha as a tensor per module
//
// A peft_text_encoder/ of an earlier export is removed. The other two files hold both networks.
//
// so that each reader makes the same ΔW = (alpha / rank) B A. Equal parameters give equal bytes. Throws INTERNAL when
// the disk refuses.
void export_lora(const LoraParameters& lora, const LoraExportOptions& options, const std::string& directory);

}  // namespace brushwork
