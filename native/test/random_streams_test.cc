// The numbers were printed by Python torch 2.11.0 with the line in each test's comment, where
//   g = lambda seed, stream, index: torch.Generator().manual_seed(stream_seed(seed, stream, index))
#include "core/train/random_streams.h"

#include "check.h"

using brushwork::RandomStream;

// Exact: the recipe promises the same bits as Python's torch (x86-64 with AVX2; older machines round differently).
static void check_equal(const torch::Tensor& actual, const std::vector<float>& expected) {
  const auto values = actual.flatten().contiguous();
  CHECK(values.numel() == static_cast<int64_t>(expected.size()));
  for (size_t i = 0; i < expected.size(); ++i) CHECK(values.data_ptr<float>()[i] == expected[i]);
}

TEST(seeds_follow_the_recipe) {
  CHECK(brushwork::mix64(0) == 0xe220a8397b1dcdafULL);
  CHECK(brushwork::mix64(1) == 0x910a2dec89025cc1ULL);
  CHECK(brushwork::stream_seed(42, RandomStream::kNoise, 7) == 0xe4ec3c7c79d6ee2bULL);
  CHECK(brushwork::stream_seed((1ULL << 53) - 1, RandomStream::kLoraInit, 0) == 0x47f68582c42c3c80ULL);
}

// torch.randn((1, 4, 8, 8), generator=g(42, 5, 7)).flatten()[[0, 1, 17, 255]]
TEST(normal_draws_equal_python) {
  const auto drawn = brushwork::draw_normal({1, 4, 8, 8}, {42, RandomStream::kNoise, 7}).flatten();
  check_equal(drawn.index_select(0, torch::tensor({0, 1, 17, 255})),
              {0x1.c6d8d2p-1f, 0x1.6bbb84p+0f, 0x1.48840ep-2f, -0x1.2ef698p+1f});
}

// torch.randn((1, 4, 2, 1), generator=g(42, 3, 0)): fewer than 16 numbers take another path in torch
TEST(small_normal_draws_equal_python) {
  check_equal(brushwork::draw_normal({1, 4, 2, 1}, {42, RandomStream::kLatentSample, 0}),
              {0x1.ca10bcp-2f, 0x1.104db8p-2f, -0x1.7cc306p+0f, -0x1.a3512ep-5f, 0x1.1d9e96p-2f, -0x1.671414p-2f,
               -0x1.2b551cp+1f, 0x1.c3b104p+0f});
}

// b = 1 / math.sqrt(320); torch.empty(4, 320).uniform_(-b, b, generator=g(42, 1, 3)).flatten()[[0, 1, 1279]]
TEST(uniform_draws_equal_python) {
  const double bound = 1.0 / std::sqrt(320.0);
  const auto drawn = brushwork::draw_uniform({4, 320}, -bound, bound, {42, RandomStream::kLoraInit, 3}).flatten();
  check_equal(drawn.index_select(0, torch::tensor({0, 1, 1279})), {0x1.4051a4p-7f, 0x1.3bd016p-6f, 0x1.6eb224p-5f});
}

// torch.randperm(12, generator=g(42, 2, 9)) and torch.randint(0, 1000, (4,), generator=g(42, 4, 123))
TEST(integer_draws_equal_python) {
  const auto order = brushwork::draw_permutation(12, {42, RandomStream::kEpochOrder, 9});
  CHECK(order.equal(torch::tensor({7, 5, 2, 9, 0, 10, 6, 3, 11, 8, 4, 1}, torch::kInt64)));
  const auto timesteps = brushwork::draw_integers(1000, 4, {42, RandomStream::kTimestep, 123});
  CHECK(timesteps.equal(torch::tensor({453, 804, 645, 550}, torch::kInt64)));
}

TEST_MAIN()
