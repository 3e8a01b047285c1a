#include "core/model/lora_linear.h"

namespace brushwork {

torch::Tensor lora_low(LoraStep& lora, int64_t a_group, const torch::Tensor& x) {
  const auto& a = lora.a_group(a_group);  // (n, r, in)
  if (lora.has_dropout()) return at::bmm(lora.dropped(x, a.size(0)), a.transpose(1, 2));
  return at::linear(x, a.flatten(0, 1)).unflatten(1, {a.size(0), a.size(1)}).transpose(0, 1);
}

torch::Tensor lora_add(LoraStep& lora, int64_t b_group, const torch::Tensor& y, const torch::Tensor& low) {
  return at::baddbmm(y, low, lora.b_group(b_group).transpose(1, 2));
}

torch::Tensor lora_linear(LoraStep* lora, const LoraGroups& groups, const Linear& layer, const torch::Tensor& x) {
  if (lora == nullptr) return layer(x);
  const auto low = lora_low(*lora, groups.a, x).squeeze(0);
  // In place: the layer's result is needed by no gradient.
  return layer(x).addmm_(low, lora->b_group(groups.b).squeeze(0).t());
}

}  // namespace brushwork
