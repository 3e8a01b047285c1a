// The commands of the plain program; main.cc lists their options.
#pragma once

#include "cli/options.h"

namespace brushwork::cli {

// Writes a random base model.
void make_base_model(Options& options);

// Trains a number of steps on synthetic data and prints one JSON object: time per step, memory, device.
void bench(Options& options);

// Runs text encoder, VAE and UNet (with a LoRA where one is named) on the tensors of a file, each where its input is
// there, writes what they give and prints one JSON object: seconds, and memory after loading and in all.
void forward(Options& options);

// Trains a synthetic job to its end, prints a JSON line per step and one with time and memory, and writes the weights;
// the LoRA's gradients after the first micro-step too, where a file for them is named.
void train_synthetic(Options& options);

}  // namespace brushwork::cli
