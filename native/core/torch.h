// The one way in which this project includes libtorch (it is also the precompiled header): tensors and autograd,
// without the modules, optimizers and data loaders of torch/torch.h, which would cost every build a third more.
#pragma once

#include <torch/autograd.h>
#include <torch/cuda.h>
#include <torch/types.h>
#include <torch/utils.h>
#include <torch/version.h>

#if TORCH_VERSION_MAJOR != 2 || TORCH_VERSION_MINOR < 11 || TORCH_VERSION_MINOR > 13
#error \
    "Brushwork is tried with libtorch 2.11 to 2.13: point LIBTORCH at the torch wheel 2.11.0, or extend this range after running the tests."
#endif
