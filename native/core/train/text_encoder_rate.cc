#include "core/train/text_encoder_rate.h"

#include <algorithm>
#include <limits>

namespace brushwork {

namespace {

// The stretch of the flat tensor that holds the text encoder's A, or its B: groups lie one after the other.
torch::Tensor range_of(const LoraParameters& lora, torch::Tensor (LoraParameters::*view)(int64_t) const) {
  int64_t begin = std::numeric_limits<int64_t>::max(), count = 0;
  for (int64_t i = lora.layout().text_encoder->target; i < lora.module_count(); ++i) {
    const auto module = (lora.*view)(i);
    begin = std::min(begin, module.storage_offset());
    count += module.numel();
  }
  return lora.values().detach().narrow(0, begin, count);
}

}  // namespace

TextEncoderRate::TextEncoderRate(const LoraParameters& lora, double factor)
    : factor_(factor), ranges_{range_of(lora, &LoraParameters::a), range_of(lora, &LoraParameters::b)} {
  for (const auto& range : ranges_) before_.push_back(torch::empty_like(range));
}

void TextEncoderRate::before_step() {
  for (size_t i = 0; i < ranges_.size(); ++i) before_[i].copy_(ranges_[i]);
}

void TextEncoderRate::after_step() {
  for (size_t i = 0; i < ranges_.size(); ++i) torch::lerp_out(ranges_[i], before_[i], ranges_[i], factor_);
}

}  // namespace brushwork
