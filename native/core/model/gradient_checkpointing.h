// Gradient checkpointing: less memory for more computation (Chen et al., arXiv:1604.06174).
#pragma once

#include <functional>
#include <vector>

#include "core/lora/lora_step.h"
#include "core/torch.h"

namespace brushwork {

// A part of the UNet as a function of the tensors through which gradients flow; whatever else it reads, it captures. It
// may be called after the forward pass has returned, so what it captures must live until the backward pass.
using Block = std::function<torch::Tensor(const std::vector<torch::Tensor>& inputs, LoraStep& lora)>;

// `block(inputs, lora)`, of which only the inputs are kept: the backward pass computes the rest again, with the same
// dropout. Gradients have the same bits as without, where kernels are deterministic and each input is used by the block
// through a node of its own (`Tensor::alias`): sums of gradients are then formed in the same order.
torch::Tensor checkpointed(Block block, const std::vector<torch::Tensor>& inputs, LoraStep& lora);

}  // namespace brushwork
