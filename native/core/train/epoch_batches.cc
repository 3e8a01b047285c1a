#include "core/train/epoch_batches.h"

#include <algorithm>
#include <utility>

namespace brushwork {

EpochBatches::EpochBatches(std::vector<int64_t> size_of_image, int64_t repeats, int64_t batch_size)
    : size_of_image_(std::move(size_of_image)), repeats_(repeats), batch_size_(batch_size) {
  for (const int64_t size : size_of_image_) {
    counts_.resize(std::max(counts_.size(), static_cast<size_t>(size) + 1));
    counts_[static_cast<size_t>(size)] += repeats;
  }
  for (const int64_t images : counts_) count_ += (images + batch_size - 1) / batch_size;
}

int64_t EpochBatches::largest(int64_t size) const { return std::min(batch_size_, image_count(size)); }

std::vector<torch::Tensor> EpochBatches::in_order(const torch::Tensor& order) const {
  std::vector<torch::Tensor> batches;
  std::vector<std::vector<int64_t>> open(counts_.size());
  const auto close = [&](std::vector<int64_t>& batch) {
    batches.push_back(torch::tensor(batch, torch::kInt64));
    batch.clear();
  };
  const auto* places = order.data_ptr<int64_t>();
  for (int64_t i = 0; i < order.numel(); ++i) {
    const int64_t image = places[i] / repeats_;
    auto& batch = open[static_cast<size_t>(size_of_image_[static_cast<size_t>(image)])];
    batch.push_back(image);
    if (static_cast<int64_t>(batch.size()) == batch_size_) close(batch);
  }
  for (auto& batch : open) {
    if (!batch.empty()) close(batch);
  }
  return batches;
}

}  // namespace brushwork
