// The commands of the plain program; main.cc lists their options.
#pragma once

#include "cli/options.h"

namespace brushwork::cli {

// Writes a random base model.
void make_base_model(Options& options);

// Trains a number of steps on synthetic data and prints one JSON object: time per step, memory, device.
void bench(Options& options);

// Trains a synthetic job to its end, prints a JSON line per step and writes the weights.
void train_synthetic(Options& options);

}  // namespace brushwork::cli
