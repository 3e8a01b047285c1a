// The LoRA of linear layers in a forward pass: y = W x + b + (alpha / rank) B(A(dropout(x))), as `LoraStep` prepares
// it.
//
// Letters in shape comments: N rows, n modules of a group, r rank.
#pragma once

#include "core/lora/lora_layout.h"
#include "core/lora/lora_step.h"
#include "core/model/layers.h"

namespace brushwork {

// A(dropout(x)) of the n modules of an A group on the same input: x (N, in) -> (n, N, r).
torch::Tensor lora_low(LoraStep& lora, int64_t a_group, const torch::Tensor& x);

// y + B(low) of the n modules of a B group: y (n, N, out), low (n, N, r) -> (n, N, out).
torch::Tensor lora_add(LoraStep& lora, int64_t b_group, const torch::Tensor& y, const torch::Tensor& low);

// A frozen layer with the LoRA of a single module, or without one where `lora` is null: (N, in) -> (N, out). The result
// may be changed in place.
torch::Tensor lora_linear(LoraStep* lora, const LoraGroups& groups, const Linear& layer, const torch::Tensor& x);

}  // namespace brushwork
