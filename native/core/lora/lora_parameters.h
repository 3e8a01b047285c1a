// The trained parameters: one low-rank pair (A, B) per target module, y = W x + b + (alpha / rank) B(A(dropout(x)))
// (LoRA, arXiv:2106.09685, section 4.1).
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "core/lora/lora_layout.h"
#include "core/torch.h"

namespace brushwork {

// A job's choice of the LoRA.
struct LoraConfig {
  int64_t rank;
  double alpha;
  double dropout;  // probability of zeroing an input of A, 0 <= dropout < 1

  double scale() const { return alpha / static_cast<double>(rank); }
};

// All LoRA parameters of a training in one flat float32 tensor, and their gradients in another. A module's index is its
// ordinal in the recipe's stream 1 (the UNet's names sorted by code point, then the text encoder's in the same way).
// Where in the flat tensor a module lies is not part of the contract: go through `a(i)` and `b(i)`, or treat the flat
// tensor as a whole.
class LoraParameters {
 public:
  // Parameters for `layout` (`UNet::lora_layout()`, or that joined with the text encoder's) on `device`, all zero.
  // Throws INVALID_REQUEST for a rank < 1, a dropout outside [0, 1), an alpha that is not positive and finite, or no
  // targets.
  LoraParameters(const LoraLayout& layout, const LoraConfig& config, torch::Device device);

  // The recipe's initial values: A ~ uniform(-1/sqrt(in), 1/sqrt(in)) drawn on the CPU as (rank, in) float32 from
  // `generator_of(ordinal)`, B = 0. Gradients become zero.
  void initialize(const std::function<torch::Generator(int64_t ordinal)>& generator_of);

  const LoraConfig& config() const { return config_; }
  const LoraLayout& layout() const { return layout_; }
  const std::vector<LoraTarget>& targets() const { return layout_.targets; }
  int64_t module_count() const { return static_cast<int64_t>(layout_.targets.size()); }
  int64_t parameter_count() const { return values_.numel(); }

  // (P,) float32 leaf that requires grad; update it in place under NoGradGuard.
  const torch::Tensor& values() const { return values_; }
  // (P,) float32, the same storage as `values().grad()`: backward() adds to it, zero it in place.
  const torch::Tensor& gradients() const { return gradients_; }

  // Views of module `i`, without autograd: A (rank, in), B (out, rank).
  torch::Tensor a(int64_t i) const { return view_a(values_.detach(), i); }
  torch::Tensor b(int64_t i) const { return view_b(values_.detach(), i); }
  torch::Tensor a_gradient(int64_t i) const { return view_a(gradients_, i); }
  torch::Tensor b_gradient(int64_t i) const { return view_b(gradients_, i); }
  // The same views of any flat tensor laid out like `values()`, e.g. an optimizer's moment.
  torch::Tensor view_a(const torch::Tensor& flat, int64_t i) const;
  torch::Tensor view_b(const torch::Tensor& flat, int64_t i) const;

 private:
  LoraConfig config_;
  LoraLayout layout_;
  std::vector<int64_t> a_offsets_;
  std::vector<int64_t> b_offsets_;
  torch::Tensor values_;
  torch::Tensor gradients_;
};

}  // namespace brushwork
