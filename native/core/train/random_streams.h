// Defines: RandomStream, mix64, stream_seed and the draws of the training recipe.
//
// Every draw uses a fresh CPU generator whose seed depends on (job seed, stream, index) alone, so the numbers of step s
// need no history, equal Python's torch bit for bit, and are the same on every machine whatever its GPU.
#pragma once

#include <ATen/core/Generator.h>

#include <cstdint>

#include "core/torch.h"

namespace brushwork {

// The recipe's stream numbers, and those that are ours, from 9 on. Stream 16 has no draw here: its seeds themselves
// decide which pictures are held out, see native/trainer/held-out-pictures.ts.
enum class RandomStream : uint64_t {
  kLoraInit = 1,
  kEpochOrder = 2,
  kLatentSample = 3,
  kTimestep = 4,
  kNoise = 5,
  kDropout = 6,
  kFlip = 7,
  kCaptionDropout = 8,
  kNoiseOffset = 9,
  kValidationLatentSample = 17,
  kValidationNoise = 18,
};

// SplitMix64's step and finaliser, all arithmetic modulo 2^64.
uint64_t mix64(uint64_t z);

// mix64(mix64(mix64(seed) ^ stream) ^ index).
uint64_t stream_seed(uint64_t seed, RandomStream stream, uint64_t index);

// One place of one stream: what a draw function needs to be reproducible.
struct StreamPlace {
  uint64_t seed;  // the job's, 0 … 2^53-1
  RandomStream stream;
  uint64_t index;
};

// A fresh CPU generator, the same state as Python's torch.Generator().manual_seed(seed).
at::Generator make_generator(uint64_t seed);

// The generator of one place: seeded with its `stream_seed`.
at::Generator make_generator(const StreamPlace& place);

// torch.randn(shape): float32 on the CPU.
torch::Tensor draw_normal(at::IntArrayRef shape, const StreamPlace& place);

// torch.empty(shape).uniform_(low, high): float32 on the CPU.
torch::Tensor draw_uniform(at::IntArrayRef shape, double low, double high, const StreamPlace& place);

// torch.randint(0, high, (count,)): int64 on the CPU.
torch::Tensor draw_integers(int64_t high, int64_t count, const StreamPlace& place);

// torch.randperm(count): int64 on the CPU.
torch::Tensor draw_permutation(int64_t count, const StreamPlace& place);

}  // namespace brushwork
