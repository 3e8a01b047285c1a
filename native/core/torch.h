// The one way in which this project includes libtorch (it is also the precompiled header).
#pragma once

#include <torch/torch.h>
#include <torch/version.h>

#if TORCH_VERSION_MAJOR != 2 || TORCH_VERSION_MINOR < 11 || TORCH_VERSION_MINOR > 13
#error \
    "Brushwork is tried with libtorch 2.11 to 2.13: point LIBTORCH at the torch wheel 2.11.0, or extend this range after running the tests."
#endif
