// Base models with random weights, for tests and demos: the structure of Stable Diffusion 1.5 at a small size.
#pragma once

#include <cstdint>
#include <string>

namespace brushwork {

// Writes a diffusers-layout directory (weights and config.json of unet, vae, text_encoder and scheduler,
// model_index.json; not the tokenizer). `preset`: "tiny" (2 levels, for tests) or "small" (4 levels like Stable
// Diffusion 1.5, for demos). The same seed gives the same bytes: each tensor is drawn from a CPU generator of its own,
// seeded with mix64(seed ^ fnv1a64("<component>/<key>")), so anything that has torch can draw the same model. Throws
// INVALID_REQUEST for an unknown preset, INTERNAL when the disk refuses.
void write_random_base_model(const std::string& directory, const std::string& preset, int64_t seed);

}  // namespace brushwork
