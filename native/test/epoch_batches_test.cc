#include "core/train/epoch_batches.h"

#include "check.h"

using namespace brushwork;

static torch::Tensor order_of(const std::vector<int64_t>& order) { return torch::tensor(order, torch::kInt64); }

static std::vector<std::vector<int64_t>> batches_of(const EpochBatches& batches, const std::vector<int64_t>& order) {
  std::vector<std::vector<int64_t>> result;
  for (const auto& batch : batches.in_order(order_of(order))) {
    const auto* begin = batch.data_ptr<int64_t>();
    result.emplace_back(begin, begin + batch.numel());
  }
  CHECK(static_cast<int64_t>(result.size()) == batches.count());
  return result;
}

using Batches = std::vector<std::vector<int64_t>>;

TEST(pictures_of_one_size_are_cut_into_batches_in_the_order_drawn) {
  const EpochBatches batches({0, 0, 0, 0, 0}, 1, 2);
  CHECK(batches.image_count() == 5 && batches.count() == 3 && batches.largest(0) == 2);
  CHECK((batches_of(batches, {3, 1, 4, 0, 2}) == Batches{{3, 1}, {4, 0}, {2}}));
}

TEST(a_batch_holds_one_size_and_comes_when_it_is_full) {
  // Sizes: 0 of pictures 1 and 4, 1 of pictures 0, 2 and 5, 2 of picture 3.
  const EpochBatches batches({1, 0, 1, 2, 0, 1}, 1, 2);
  CHECK(batches.count() == 4);
  CHECK((batches_of(batches, {3, 5, 1, 0, 4, 2}) == Batches{{5, 0}, {1, 4}, {2}, {3}}));
  CHECK((batches_of(batches, {0, 1, 2, 3, 4, 5}) == Batches{{0, 2}, {1, 4}, {5}, {3}}));
}

TEST(what_is_left_over_comes_in_the_order_of_the_sizes) {
  const EpochBatches batches({2, 1, 0}, 1, 4);
  CHECK(batches.largest(0) == 1);
  CHECK((batches_of(batches, {0, 1, 2}) == Batches{{2}, {1}, {0}}));
}

TEST(single_pictures_come_in_the_order_drawn_whatever_their_size) {
  const EpochBatches batches({1, 0, 1, 2}, 1, 1);
  CHECK((batches_of(batches, {2, 3, 0, 1}) == Batches{{2}, {3}, {0}, {1}}));
}

TEST(repeats_are_neighbours_in_the_list_that_is_put_in_order) {
  // The list is 0 0 0 1 1 1.
  const EpochBatches batches({0, 1}, 3, 2);
  CHECK(batches.image_count() == 6 && batches.image_count(1) == 3);
  CHECK(batches.count() == 4 && batches.largest(1) == 2);
  CHECK((batches_of(batches, {5, 0, 2, 3, 1, 4}) == Batches{{0, 0}, {1, 1}, {0}, {1}}));
}

TEST_MAIN()
