#include "core/train/random_streams.h"

#include <ATen/CPUGeneratorImpl.h>

#include "core/torch.h"

namespace brushwork {

uint64_t mix64(uint64_t z) {
  z += 0x9E3779B97F4A7C15ULL;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  return z ^ (z >> 31);
}

uint64_t stream_seed(uint64_t seed, RandomStream stream, uint64_t index) {
  return mix64(mix64(mix64(seed) ^ static_cast<uint64_t>(stream)) ^ index);
}

at::Generator make_generator(uint64_t seed) { return at::make_generator<at::CPUGeneratorImpl>(seed); }

at::Generator make_generator(const StreamPlace& place) {
  return make_generator(stream_seed(place.seed, place.stream, place.index));
}

torch::Tensor draw_normal(at::IntArrayRef shape, const StreamPlace& place) {
  return torch::randn(shape, make_generator(place), torch::dtype(torch::kFloat32));
}

torch::Tensor draw_uniform(at::IntArrayRef shape, double low, double high, const StreamPlace& place) {
  return torch::empty(shape, torch::dtype(torch::kFloat32)).uniform_(low, high, make_generator(place));
}

torch::Tensor draw_integers(int64_t high, int64_t count, const StreamPlace& place) {
  return torch::randint(0, high, {count}, make_generator(place), torch::dtype(torch::kInt64));
}

torch::Tensor draw_permutation(int64_t count, const StreamPlace& place) {
  return torch::randperm(count, make_generator(place), torch::dtype(torch::kInt64));
}

}  // namespace brushwork
