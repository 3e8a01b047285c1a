// Defines: EpochBatches (which pictures the micro-steps of an epoch take, and in which order).
//
// The recipe's epoch is `randperm(n)` over the list of pictures, cut into batches. Where pictures have several sizes, a
// batch must hold one only; our extension, of which the recipe is the case of one size:
//
//   1. Walk through the permutation; each picture joins the open batch of its size.
//   2. A batch that has `batch_size` pictures is trained then and there.
//   3. At the epoch's end the open batches are trained, in the order of the sizes.
//
// So an epoch has the sum of ceil(n_size / batch_size) micro-steps, and its order depends on seed and epoch alone.
#pragma once

#include <cstdint>
#include <vector>

#include "core/torch.h"

namespace brushwork {

class EpochBatches {
 public:
  // `size_of_image`: for each picture, in the recipe's order, the number of its size, from 0. `repeats`: how often each
  // comes in an epoch, in the list one behind the other; at least 1. `batch_size`: at least 1.
  EpochBatches(std::vector<int64_t> size_of_image, int64_t repeats, int64_t batch_size);

  // Pictures of an epoch, each as often as it comes.
  int64_t image_count() const { return static_cast<int64_t>(size_of_image_.size()) * repeats_; }
  // The same, of one size.
  int64_t image_count(int64_t size) const { return counts_.at(static_cast<size_t>(size)); }
  // Micro-steps of an epoch.
  int64_t count() const { return count_; }
  // Pictures of the largest batch of a size.
  int64_t largest(int64_t size) const;
  // The batches of an epoch, each the indices of its pictures: int64 (B) on the CPU. `order`: int64 (image_count()) on
  // the CPU, a permutation of the epoch's list.
  std::vector<torch::Tensor> in_order(const torch::Tensor& order) const;

 private:
  std::vector<int64_t> size_of_image_;
  int64_t repeats_;
  int64_t batch_size_;
  std::vector<int64_t> counts_;  // pictures of each size
  int64_t count_ = 0;
};

}  // namespace brushwork
