// Defines: load_base_model_with_lora (a base model and a LoRA file, ready to draw with).
#pragma once

#include <string>

#include "core/lora/lora_parameters.h"
#include "core/model_io/base_model.h"

namespace brushwork {

// A base model and a LoRA that belongs to it. Layers that training knows no LoRA for have the file's change in their
// weights: the model is the base model no more.
struct ModelWithLora {
  BaseModel model;
  LoraParameters lora;
};

// Opens the model in `directory` (see `load_base_model`) together with the LoRA at `lora_path` (see `LoraFile`).
//
// The changes of the attentions' projections become parameters, so that they count with the precision that they were
// trained with; those of all other linear layers and convolutions of UNet and text encoder are added to the weights, in
// float32, before these get the type that they are held in. The parameters have the UNet's layout, joined with the text
// encoder's where the file changes that's attentions, the file's rank (the largest, where modules differ; the others
// are padded with zeros) and a scale of 1: each module's alpha / rank is folded into B. Modules that the file does not
// hold are zero.
//
// Throws INVALID_REQUEST naming the file for a layer that the model does not have or that has another shape, and what
// `LoraFile` throws, that before the model is opened.
ModelWithLora load_base_model_with_lora(const std::string& directory, const BaseModelOptions& options,
                                        const std::string& lora_path);

}  // namespace brushwork
