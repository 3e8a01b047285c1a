#include "core/model/gradient_checkpointing.h"

#include <torch/custom_class.h>

#include <utility>

namespace brushwork {

namespace {

// What the backward pass needs to run a block again.
struct Recipe : torch::CustomClassHolder {
  Recipe(Block block, LoraStep lora) : block(std::move(block)), lora(std::move(lora)) {}
  Block block;
  LoraStep lora;  // as it was before the block ran
};

struct CheckpointedBlock : torch::autograd::Function<CheckpointedBlock> {
  static torch::Tensor forward(torch::autograd::AutogradContext* context, const c10::intrusive_ptr<Recipe>& recipe,
                               LoraStep* lora, at::TensorList inputs) {
    context->saved_data["recipe"] = c10::IValue::make_capsule(recipe);
    context->save_for_backward(inputs.vec());
    return recipe->block(inputs.vec(), *lora);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& output_gradients) {
    const auto recipe = c10::static_intrusive_pointer_cast<Recipe>(context->saved_data["recipe"].toCapsule());
    auto inputs = context->get_saved_variables();
    for (auto& input : inputs) input = input.detach().requires_grad_(input.requires_grad());
    torch::Tensor output;
    {
      const torch::AutoGradMode with_gradients(true);
      auto lora = recipe->lora.clone();
      output = recipe->block(inputs, lora);
    }
    // Gradients of LoRA parameters go to their buffer directly. The way there is shared by all blocks: it is retained.
    torch::autograd::backward({output}, {output_gradients.at(0)}, /*retain_graph=*/true);
    torch::autograd::variable_list gradients = {torch::Tensor(), torch::Tensor()};  // of `recipe` and `lora`
    for (const auto& input : inputs) gradients.push_back(input.grad());
    return gradients;
  }
};

}  // namespace

torch::Tensor checkpointed(Block block, const std::vector<torch::Tensor>& inputs, LoraStep& lora) {
  return CheckpointedBlock::apply(c10::make_intrusive<Recipe>(std::move(block), lora.clone()), &lora,
                                  at::TensorList(inputs));
}

}  // namespace brushwork
